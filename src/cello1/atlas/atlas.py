"""The atlas: log-odds of genes for cell types, combined from all sources.

A column of a source gives how often each gene reaches a cell's list; compared with the other types
of that source, this is a log-ratio. The row of a type is made from log-ratios in three steps:

1. *Markers.* For every list of markers, a regression over all types with tables estimates how far
   the log-ratio of a gene moves when the list names it for the type, for a type above it, or for
   types below it. This gives an expected row for every type, with or without a table.
2. *Tables.* The residuals of the columns are carried to the type by kriging over the Cell
   Ontology: own columns have the largest weights, relatives smaller ones with distance; columns of
   one study, which share its errors, count less than columns of several studies.
3. A gene that a source did not measure contributes nothing.

The score of a cell is the sum over its listed genes, without those that nearly all cells express.
Where the measured genes are known, a measured gene that is not listed counts as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, vstack

from cello1.atlas.genes import current, is_housekeeping
from cello1.atlas.source import Source, read_sources
from cello1.atlas.tissues import system
from cello1.errors import InputError
from cello1.scoring.ontology import above_of, information, likeness, term_id, term_label

Floats = npt.NDArray[np.float32]
# Bounds on the share of cells that list a gene, from rare to common.
COMMON = (0.003, 0.01, 0.03, 0.08)
FIRST, LAST = 6, 18
EMBEDDED = Path(str(files("cello1.atlas") / "embedded"))

How = Literal["source", "relative", "markers only", "not at all"]


@dataclass(frozen=True)
class Weights:
    """Weights of the sources; fitted on studies that are in no reported result.

    Attributes
    ----------
    marked, measured
        Weights of the expected row, and of the residuals of tables, by how often cells of any
        type list the gene, from rare to common (bounds: `COMMON`). Genes that many types list are
        often ambient, or belong to one programme of correlated genes.
    marked_alone, measured_alone
        The same for a type without data in any table; interpolated between the two by
        `Parts.known`.
    first, last
        Increase of the weight among the first `FIRST` genes of a list, and decrease after `LAST`,
        by how common the gene is: for a common gene its rank is most informative.
    temperature
        Divisor of the scores, so that probabilities under one-to-one are calibrated.
    pseudo
        Added to every frequency before the logarithm.
    decline
        Power of the similarity of two types in the ontology: how fast relatives lose weight.
    noise, study
        Variance of one column, and variance shared within a study, in units of that of types.
    tissue, disease
        Additional covariance of columns of the puzzle's tissue (disease) with the type.
    ridge
        Penalty of the regression on markers.
    floor
        The lowest log-odds of a listed gene: an unexpected gene in a list may be ambient.
    absence
        Weight of a measured gene that is not listed, relative to its log-odds by frequency.
    """

    marked: tuple[float, ...]
    measured: tuple[float, ...]
    marked_alone: tuple[float, ...]
    measured_alone: tuple[float, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]
    temperature: float
    pseudo: float = 0.05
    decline: float = 4.5
    noise: float = 0.5
    study: float = 1.0
    tissue: float = 0.0
    disease: float = 0.0
    ridge: float = 50.0
    floor: float = -0.5
    absence: float = 0.25

    @classmethod
    @cache
    def read(cls) -> Weights:
        """Return the fitted weights; ``benchmarks/atlas_weights.py`` makes them."""
        told: dict[str, Any] = json.loads((EMBEDDED / "weights.json").read_text("utf-8"))
        fields: dict[str, Any] = {}
        fields |= {k: tuple(v) if isinstance(v, list) else v for k, v in told["weights"].items()}
        return cls(**fields)


class Knowledge(NamedTuple):
    """How the atlas knows a label.

    Attributes
    ----------
    how
        ``source``: a column of its own; ``relative``: columns of types below or above it;
        ``markers only``; ``not at all``.
    through
        The sources, the relatives' labels, or the lists of markers.
    """

    how: How
    through: tuple[str, ...]


class Parts(NamedTuple):
    """The parts of the rows of types.

    Attributes
    ----------
    expected
        Log-ratio predicted from lists of markers, shape (types, genes).
    beyond
        Residual of the tables, carried over the ontology, shape (types, genes).
    known
        Share of a type's residual variance that tables explain, within [0, 1], shape (types,):
        about .8 with columns of many studies, 0 without a relative.
    """

    expected: Floats
    beyond: Floats
    known: Floats


class _Places(dict[str, int]):
    """Gene symbol -> its position in the atlas; -1 where it has none, or is never evidence."""

    def __init__(self, at: Mapping[str, int]) -> None:
        super().__init__()
        self._at = at

    def __missing__(self, gene: str) -> int:
        name = current(gene)
        place = self[gene] = -1 if is_housekeeping(name) else self._at.get(name, -1)
        return place


class _Entry(NamedTuple):
    key: str
    term: str | None


class Atlas:
    """All sources, ready to score cells against labels.

    Parameters
    ----------
    sources
        Tables and lists of markers; names must be unique.
    weights
        Weights of the sources; by default the fitted ones.
    """

    def __init__(self, sources: Sequence[Source], weights: Weights | None = None) -> None:
        names = [source.name for source in sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(
                f"two sources are named {twice[0]!r}; give every source a name of its own"
            )
        if not sources:
            raise InputError("the atlas has no sources left; leave fewer out, or name a folder")
        self.sources = tuple(sources)
        self.weights = weights or Weights.read()
        self._tables = [source for source in sources if source.is_table]
        self._lists = [source for source in sources if not source.is_table]
        self._rows: dict[tuple[str, str, str], Floats] = {}
        self._keys_of: dict[str, str] = {}
        self._absent: dict[tuple[Any, ...], Floats] = {}
        self._asked: tuple[tuple[str, ...], list[str], list[int]] = ((), [], [])

    @classmethod
    def read(
        cls,
        folder: Path | None = None,
        *,
        only: bool = False,
        without: Iterable[str] = (),
        weights: Weights | None = None,
    ) -> Atlas:
        """Read the embedded atlas, and the sources of a folder.

        Parameters
        ----------
        folder
            Made by ``cello1 atlas build``; its sources join the embedded ones.
        only
            Read the folder alone.
        without
            Names of sources or studies to leave out.
        weights
            Default: the fitted ones.

        Raises
        ------
        InputError
            When the folder is no atlas, or no source or study has a name to leave out.
        """
        sources: list[Source] = []
        if folder is None or not only:
            sources += read_sources(EMBEDDED)[0]
        if folder is not None:
            own = read_sources(folder)[0]
            taken = {source.name for source in sources}
            if clash := [s.name for s in own if s.name in taken]:
                raise InputError(
                    f"{folder} has a source named {clash[0]!r}, and so has the embedded atlas; "
                    "give it another name, or use the folder alone"
                )
            sources += own
        out = set(without)
        if unknown := out - {s.name for s in sources} - {s.study for s in sources}:
            raise InputError(
                f"cannot leave out {sorted(unknown)[0]!r}: no source or study has this name; "
                "cello1 atlas show lists them"
            )
        kept = [s for s in sources if s.name not in out and s.study not in out]
        return cls(kept, weights)

    # --- contents --------------------------------------------------------------------------

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """All genes that any source has a value for, sorted."""
        return tuple(sorted({g for s in self.sources for g in _valued(s)}))

    @cached_property
    def _at(self) -> dict[str, int]:
        return {gene: i for i, gene in enumerate(self.genes)}

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Types with a table: Cell Ontology ids, or labels that the ontology does not have."""
        return tuple(sorted({c.key for s in self._tables for c in s.columns}))

    @cached_property
    def _key_at(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def _list_keys(self) -> dict[str, list[tuple[int, int]]]:
        """Type -> its entries in lists of markers, as (list, row)."""
        found: dict[str, list[tuple[int, int]]] = {}
        for k, source in enumerate(self._lists):
            for row, column in enumerate(source.columns):
                found.setdefault(column.key, []).append((k, row))
        return found

    def knows(self, label: str) -> Knowledge:
        """Return how a label is known: by its own sources, relatives, markers, or not at all."""
        entry = self._entry(label)
        if entry.key in self._key_at:
            own = [s.name for s in self._tables if any(c.key == entry.key for c in s.columns)]
            return Knowledge("source", tuple(own))
        if relatives := self.relatives(label):
            return Knowledge("relative", tuple(relatives))
        lists = {
            self._lists[k].name
            for key in self._ways_up(entry)
            for k, _ in self._list_keys.get(key, ())
        }
        if lists:
            return Knowledge("markers only", tuple(sorted(lists)))
        return Knowledge("not at all", ())

    def relatives(self, label: str) -> list[str]:
        """Return the descendants of a type that have tables, else its nearest ancestors that do."""
        term = self._entry(label).term
        if term is None:
            return []
        below = [k for k in self.keys if term in above_of(k)]
        if not below:
            over = above_of(term)
            up = [k for k in self.keys if k in over and information(k) >= _TELLING]
            below = [k for k in up if not any(k in above_of(other) for other in up)]
        return [term_label(k) or k for k in below]

    def _entry(self, label: str) -> _Entry:
        key = label.strip().casefold()
        if key in self._key_at or key in self._list_keys:
            return _Entry(key, None)
        term = term_id(label)
        return _Entry(term or key, term)

    @staticmethod
    def _ways_up(entry: _Entry) -> list[str]:
        if entry.term is None:
            return [entry.key]
        return [
            entry.term,
            *(t for t in sorted(above_of(entry.term)) if information(t) >= _TELLING),
        ]

    # --- columns ---------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> _Columns:
        return _Columns.of(self._tables, self._at, self._key_at, self.weights.pseudo)

    @cached_property
    def _gain(self) -> Floats:
        """Spread of a gene's log-ratio between types, shape (genes,)."""
        return self._gain_and_worth[0]

    @property
    def _worth(self) -> Floats:
        """Regression weights of each way a list of markers names a gene, then of not naming it."""
        return self._gain_and_worth[1]

    @cached_property
    def _gain_and_worth(self) -> tuple[Floats, Floats]:
        prior = np.array([*_USUAL_WORTH * len(self._lists), *_USUAL_AGAINST, 0.0])
        if not self._tables:
            return np.ones(len(self.genes), np.float32), prior.astype(np.float32)
        columns, size = self._columns, len(prior)
        gain = columns.spread()
        if not self._lists:
            return gain, prior.astype(np.float32)
        features = [csr_array((f * gain).tocsr()) for f in self._named(self.keys)]
        gram, right = np.zeros((size, size)), np.zeros(size)
        for some in columns.blocks():
            mean, seen = columns.by_key(some)
            weight, wide = np.minimum(seen, 3), gain[some]
            flat = [csr_array(f[:, some]) for f in features]
            for i, f in enumerate(flat):
                weighed = csr_array(f.multiply(weight).tocsr())
                for j in range(i, len(flat)):
                    gram[i, j] += weighed.multiply(flat[j]).sum()
                gram[i, -1] += weighed.multiply(wide[None, :]).sum()
                right[i] += weighed.multiply(mean).sum()
            gram[-1, -1] += float((weight * wide**2).sum())
            right[-1] += float((weight * wide * mean).sum())
        gram = np.triu(gram) + np.triu(gram, 1).T
        ridge = self.weights.ridge * np.eye(size)
        change = np.linalg.solve(gram + ridge, right - gram @ prior)
        return gain, _to_grid(prior + change).astype(np.float32)

    def _named(self, keys: Sequence[str]) -> list[csr_array]:
        """For every list: genes named for the type, for types above and below it, and against it.

        Each of shape (types, genes).
        """
        own, up, down = self._kinship(keys)
        features, against = [], [csr_array((len(keys), len(self.genes)), dtype=np.float32)] * 3
        for named, denied, places in self._marker_rows:
            for ways, n in ((own, 0), (up, 1), (down, 2)):
                way = ways[:, places]
                speaks = csr_array(way @ named)
                if n == 1:  # the mean over the types above that it is named for
                    speaks.data /= csr_array(way @ (named > 0).astype(np.float32)).data
                if n == 2:
                    number = np.maximum(way.sum(axis=1), 1).astype(np.float32)
                    speaks = csr_array(speaks.multiply(1 / number[:, None]).tocsr())
                features.append(speaks)
                against[n] = against[n] + csr_array(way @ denied)
        return [*features, *(csr_array(f) for f in against)]

    @cached_property
    def _marker_keys(self) -> tuple[str, ...]:
        return tuple(sorted(self._list_keys))

    @cached_property
    def _marker_rows(self) -> list[tuple[csr_array, csr_array, list[int]]]:
        """For every list: how much each naming counts, genes against types, places of its types.

        A naming counts less, the more genes the list names for the type and the more often all
        lists name the gene; the mean over the namings of a list is 1.
        """
        place = {key: i for i, key in enumerate(self._marker_keys)}
        found, times = [], np.zeros(len(self.genes))
        for source in self._lists:
            rows = _spread(source, self._at)
            named, denied = (csr_array(r.astype(np.float32)) for r in (rows > 0, rows < 0))
            times += named.sum(axis=0)
            found.append((named, denied, [place[c.key] for c in source.columns]))
        for named, *_ in found:
            length = np.diff(named.indptr)
            worth = ((1 + length / _LONG).repeat(length) * times[named.indices]) ** -0.5
            if len(worth):
                named.data = (worth / worth.mean()).astype(np.float32)
        return found

    def _kinship(self, keys: Sequence[str]) -> tuple[csr_array, csr_array, csr_array]:
        """Marker types equal to, above, and below each type, shape (types, marker types) each."""
        shape = (len(keys), len(self._marker_keys))
        place = {key: i for i, key in enumerate(self._marker_keys)}
        over = {key: above_of(key) for key in (*self._marker_keys, *keys)}
        found: list[list[tuple[int, int]]] = [[], [], []]
        for i, key in enumerate(keys):
            if key in place:
                found[0].append((i, place[key]))
            found[1] += [
                (i, place[t])
                for t in sorted(over[key])
                if t in place and information(t) >= _TELLING
            ]
            found[2] += [(i, j) for j, m in enumerate(self._marker_keys) if key in over[m]]
        made = []
        for pairs in found:
            rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
            made.append(csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape))
        return made[0], made[1], made[2]

    def _expected(self, keys: Sequence[str]) -> Floats:
        """Return the log-ratios that markers predict for types, shape (types, genes)."""
        rows = self._named_worth(keys).toarray()
        rows += self._worth[-1]
        rows *= self._gain
        rows[[not self._relevant(key) for key in keys]] = 0
        return np.asarray(rows, dtype=np.float32)

    def _named_worth(self, keys: Sequence[str]) -> csr_array:
        """Return the summed weights of the lists that name a gene for a type."""
        named = csr_array((len(keys), len(self.genes)), dtype=np.float32)
        for worth, feature in zip(self._worth, self._named(keys), strict=False):
            named = named + feature * worth
        return csr_array(named)

    def _relevant(self, key: str) -> bool:
        """Whether tables or markers have any data on a type."""
        if key in self._key_at or key in self._list_keys or not key.startswith("CL:"):
            return key in self._key_at or key in self._list_keys
        return True

    def _beyond(self, share: Floats) -> Floats:
        """Sum the residuals of columns against the markers' predictions, with weights.

        Parameters
        ----------
        share
            Weight of every column, shape (types, columns).

        Returns
        -------
        beyond
            Shape (types, genes).
        """
        # Sparse products add in a fixed order: a row does not depend on the others requested.
        columns, named = self._columns, self._worth_of_keys
        beyond = (csr_array(share) @ columns.rise).toarray()
        of_table = csr_array(csr_array(share) @ columns.of_table)
        beyond += of_table @ (columns.floor - columns.measured * (self._worth[-1] * self._gain))
        ends = np.searchsorted(columns.table, np.arange(len(columns.measured) + 1))
        for measured, start, end in zip(columns.measured, ends, ends[1:], strict=False):
            expected = csr_array(share[:, start:end]) @ named[columns.key[start:end]]
            beyond -= expected.toarray() * (measured * self._gain)
        # A gene that some columns did not measure is rescaled to those that did.
        size = csr_array(abs(csr_array(share)) @ columns.of_table)
        heard = size @ columns.measured.astype(np.float32)
        heard /= np.array(size.sum(axis=1))[:, None] + np.float32(1e-9)
        return np.asarray(beyond / np.maximum(heard, _LEAST_HEARD), dtype=np.float32)

    @cached_property
    def _worth_of_keys(self) -> csr_array:
        return self._named_worth(self.keys)

    @cached_property
    def _factor(self) -> Any:
        columns, weights = self._columns, self.weights
        alike = likeness(self.keys, self.keys).astype(np.float64) ** weights.decline
        like = alike[np.ix_(columns.key, columns.key)]
        same_study = columns.study[:, None] == columns.study[None, :]
        cov = like * (1 + weights.tissue * _matching(columns.tissue, columns.tissue))
        cov *= 1 + weights.disease * _matching(columns.disease, columns.disease)
        cov += weights.study * same_study * like**3
        cov[np.diag_indices_from(cov)] += weights.noise / np.minimum(columns.samples, 4)
        return cho_factor(cov, lower=True, overwrite_a=True)

    # --- rows and scores -------------------------------------------------------------------

    def rows(
        self, labels: Sequence[str], *, tissue: str | None = None, disease: str | None = None
    ) -> Floats:
        """Return the log-odds of each label given a gene in a cell's list.

        Parameters
        ----------
        labels
            Cell types by any name in the ontology or a source. Others get a row of zeros.
        tissue, disease
            Columns that match get more weight; the others keep theirs.

        Returns
        -------
        rows
            Shape (labels, genes), genes in the order of `genes`.
        """
        return np.array(self._known_rows(labels, tissue, disease))

    def _known_rows(
        self, labels: Sequence[str], tissue: str | None, disease: str | None
    ) -> list[Floats]:
        where = (system(tissue) or "", (disease or "").casefold())
        wanted = [(self._key(label), *where) for label in labels]
        missing = sorted({key for key in wanted if key not in self._rows})
        if missing:
            made = self._make_rows([key for key, *_ in missing], *where)
            self._rows.update(zip(missing, made, strict=True))
        return [self._rows[key] for key in wanted]

    def _key(self, label: str) -> str:
        key = self._keys_of.get(label)
        if key is None:
            key = self._keys_of[label] = self._entry(label).key
        return key

    def _make_rows(self, keys: Sequence[str], tissue: str, disease: str) -> Floats:
        parts, weights = self.parts(keys, tissue, disease), self.weights
        known = parts.known[:, None]
        rows = np.zeros_like(parts.expected)
        for part, full, bare in (
            (parts.expected, weights.marked, weights.marked_alone),
            (parts.beyond, weights.measured, weights.measured_alone),
        ):
            rows += part * known * self.by_commonness(full)
            rows += part * (1 - known) * self.by_commonness(bare)
        return np.asarray(np.maximum(rows, weights.floor), dtype=np.float32)

    def parts(self, keys: Sequence[str], tissue: str = "", disease: str = "") -> Parts:
        """Return the parts that rows are weighted sums of.

        Parameters
        ----------
        keys
            Types, as `keys` names them.
        tissue, disease
            As for :meth:`rows`.
        """
        expected = self._expected(keys)
        if not self._tables:
            return Parts(expected, np.zeros_like(expected), np.zeros(len(keys), np.float32))
        columns, weights = self._columns, self.weights
        like = likeness(keys, self.keys)[:, columns.key].astype(np.float64) ** weights.decline
        like = like * (1 + weights.tissue * _matching(np.array([tissue]), columns.tissue))
        like = like * (1 + weights.disease * _matching(np.array([disease]), columns.disease))
        share = _to_grid(cho_solve(self._factor, like.T).T)
        known = _to_grid(np.clip((share * like).sum(axis=1), 0, 1)).astype(np.float32)
        return Parts(expected, self._beyond(share.astype(np.float32)), known)

    def by_commonness(self, worth: Sequence[float]) -> Floats:
        """Interpolate weights given at the bounds of `COMMON` to every gene."""
        return np.array(worth, dtype=np.float32)[np.digitize(self._usual, COMMON)]

    @property
    def _usual(self) -> Floats:
        """Share of cells of any type that list a gene, shape (genes,)."""
        known = self._columns.usual if self._tables else np.zeros(len(self.genes), np.float32)
        return np.where(known > 0, known, np.float32(0.02))

    def indicator(self, cells: Sequence[Sequence[str]]) -> csr_array:
        """Turn gene lists, highest expression first, into a matrix, shape (cells, genes).

        Housekeeping genes and genes of no source are left out; old symbols are renamed. An entry
        is the weight of the gene's rank: higher at the top of the list, lower at the end. Where
        ranks are not known, a matrix of ones can be used instead.
        """
        places = [self._listed(genes) for genes in cells]
        lengths = np.array([len(p) for p in places], dtype=np.int64)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        indices = np.array([i for p in places for i in p], dtype=np.int32)
        rank = np.arange(len(indices)) - np.repeat(indptr[:-1], lengths)
        first, last = (self.by_commonness(w) for w in (self.weights.first, self.weights.last))
        data = 1 + first[indices] * (rank < FIRST) + last[indices] * (rank >= LAST)
        shape = (len(cells), len(self.genes))
        return csr_array((data.astype(np.float32), indices, indptr), shape=shape)

    def places(self, k: int) -> Floats:
        """Return the weight of a gene at each rank of a list, shape (k, genes)."""
        first, last = (self.by_commonness(w) for w in (self.weights.first, self.weights.last))
        rank = np.arange(k)[:, None]
        counts = 1 + first[None, :] * (rank < FIRST) + last[None, :] * (rank >= LAST)
        return np.asarray(counts, dtype=np.float32)

    def _listed(self, genes: Sequence[str]) -> list[int]:
        place = self._places
        found = [i for i in [place[gene] for gene in genes] if i >= 0]
        return found if len(set(found)) == len(found) else list(dict.fromkeys(found))

    @cached_property
    def _places(self) -> _Places:
        return _Places(self._at)

    def scores(
        self,
        cells: Sequence[Sequence[str]] | csr_array,
        candidates: Sequence[str],
        *,
        universe: Iterable[str] | None = None,
        tissue: str | None = None,
        disease: str | None = None,
    ) -> Floats:
        """Return how well each candidate explains each cell, in nats, not centred.

        Only differences are meaningful: first between cells for the same candidate (centre over
        the cells of the batch or data set: ``scores - scores.mean(axis=0)``), then between
        candidates for one cell. A candidate that is known ``not at all`` scores 0 everywhere.

        Parameters
        ----------
        cells
            Gene lists, highest expression first, or their matrix from :meth:`indicator`.
        candidates
            Labels.
        universe
            The genes that the data set measured, if known: those that a cell does not list then
            count as well. Without it unlisted genes contribute nothing.
        tissue, disease
            Tissue and disease of the cells.

        Returns
        -------
        scores
            Shape (cells, candidates), float32.
        """
        listed = cells if isinstance(cells, csr_array) else self.indicator(cells)
        rows = self.rows(candidates, tissue=tissue, disease=disease)
        scores = np.asarray(listed @ rows.T, dtype=np.float64)
        if universe is not None and self.weights.absence:
            genes = frozenset(universe)
            keys = [self._key(label) for label in candidates]
            where = (system(tissue), (disease or "").casefold(), genes)
            if len(self._absent) > _MOST_ABSENT:
                self._absent.clear()
            for key, row in zip(keys, rows, strict=True):
                if (key, *where) not in self._absent:
                    self._absent[key, *where] = self.absent(row[None, :], genes)[0]
            absent = np.array([self._absent[key, *where] for key in keys], dtype=np.float64)
            ones = csr_array((np.ones(listed.nnz), listed.indices, listed.indptr), listed.shape)
            scores += self.weights.absence * (absent.sum(axis=1) - ones @ absent.T)
        return np.asarray(scores, dtype=np.float32)

    def absent(self, rows: Floats, universe: Iterable[str]) -> Floats:
        """Return the log-odds of a label given that a measured gene is not listed, shape of `rows`.

        With b, the share of all cells that list the gene, a type lists it with f = b exp(row), and
        the log-odds are log((1 - f) / (1 - b)); 0 for genes outside the universe.
        """
        measured = np.zeros(len(self.genes), dtype=bool)
        measured[[i for gene in universe if (i := self._places[gene]) >= 0]] = True
        usual = self._usual
        often = np.clip(usual * np.exp(rows), 0, _OFTEN)
        against = np.log1p(-often) - np.log1p(-np.minimum(usual, _OFTEN))
        return np.where(measured & (rows != 0), against, 0).astype(np.float32)

    def evidence(
        self,
        genes: Sequence[str],
        label: str,
        rival: str | None = None,
        *,
        tissue: str | None = None,
        disease: str | None = None,
    ) -> list[str]:
        """Return the listed genes that support a label (against a rival), strongest first.

        Every gene returned raises the odds of the label, and more than those of the rival.
        Housekeeping genes are excluded.
        """
        rows = self._known_rows([label] if rival is None else [label, rival], tissue, disease)
        names, places = self._named_places(tuple(genes))
        own = rows[0][places]
        gains = own if rival is None else own - rows[1][places]
        speaks = (own > _SPEAKS) & (gains > _SPEAKS)
        found = [(-float(gains[i]), names[i]) for i in np.flatnonzero(speaks)]
        return [gene for _, gene in sorted(found)]

    def _named_places(self, genes: tuple[str, ...]) -> tuple[list[str], list[int]]:
        """Return the genes that may be evidence and their positions; cached per cell."""
        if self._asked[0] != genes:
            place = self._places
            names = [gene for gene in dict.fromkeys(genes) if place[gene] >= 0]
            self._asked = (genes, names, [place[gene] for gene in names])
        return self._asked[1:]

    def with_weights(self, **changes: Any) -> Atlas:
        """Return an atlas of the same sources with other weights."""
        return Atlas(self.sources, replace(self.weights, **changes))


# Prior weights of a list that names the type, one above it, one below it, for and against: used
# where tables cannot determine them.
_USUAL_WORTH = [0.3, 0.15, 0.1]
_USUAL_AGAINST = [-0.25, -0.15, 0.0]
_TELLING = 0.3  # terms of less information content (cell, native cell) are ignored
_LEAST_HEARD = 0.3
_LONG = 20  # genes that a list names for a type, from where each of them counts less
_OFTEN = 0.95
_RAREST = 1e-9  # share of cells that list a gene which no table lists
_SPEAKS = 0.2
_GRID = 2.0**24
_GENES_AT_ONCE = 4_000
_MOST_ABSENT = 500


@dataclass(frozen=True)
class _Columns:
    """All columns of all tables, over the genes of the atlas.

    The log-ratio of a gene against the other types of the source is the ``floor`` of its table,
    plus ``rise`` where any cells of the column list it; 0 where the table did not measure it.
    """

    rise: csr_array  # (columns, genes)
    floor: Floats  # (tables, genes)
    key: npt.NDArray[np.intp]
    table: npt.NDArray[np.intp]
    study: npt.NDArray[np.intp]
    samples: npt.NDArray[np.intp]
    tissue: npt.NDArray[np.str_]
    disease: npt.NDArray[np.str_]
    measured: npt.NDArray[np.bool_]  # (tables, genes)
    usual: Floats  # share of cells that list a gene, over all tables that measured it, or 0
    keys: int

    @classmethod
    def of(
        cls,
        tables: Sequence[Source],
        at: Mapping[str, int],
        key_at: Mapping[str, int],
        pseudo: float,
    ) -> _Columns:
        measured = np.zeros((len(tables), len(at)), dtype=bool)
        floor, usual = np.zeros(measured.shape, np.float32), np.zeros(len(at))
        rises = []
        for k, source in enumerate(tables):
            measured[k, [at[g] for g in source.genes if g in at]] = True
            share = _spread(source, at)
            _, of = np.unique([key_at[c.key] for c in source.columns], return_inverse=True)
            number = np.bincount(of)
            base = (share.T @ (1 / number[of] / len(number))).astype(np.float64)
            usual += base
            if len(number) <= 3:  # too few types to estimate the usual share
                base = base * 0.5 + 0.02
            floor[k] = np.where(measured[k], np.log(pseudo) - np.log(base + pseudo), 0)
            share.data = np.log1p(share.data / pseudo, dtype=np.float32)
            rises.append(share)
        columns = [(k, c) for k, source in enumerate(tables) for c in source.columns]
        studies = sorted({source.study for source in tables})
        return cls(
            rise=csr_array(vstack(rises, format="csr")),
            floor=floor,
            key=np.array([key_at[c.key] for _, c in columns]),
            table=np.array([k for k, _ in columns]),
            study=np.array([studies.index(tables[k].study) for k, _ in columns]),
            samples=np.array([c.samples for _, c in columns]),
            tissue=np.array([system(c.tissue) or "" for _, c in columns]),
            disease=np.array([c.disease.casefold() for _, c in columns]),
            measured=measured,
            usual=np.where(
                measured.any(axis=0),
                np.maximum(usual / np.maximum(measured.sum(axis=0), 1), _RAREST),
                0,
            ).astype(np.float32),
            keys=len(key_at),
        )

    @cached_property
    def of_table(self) -> csr_array:
        """Indicator of the table of each column, shape (columns, tables)."""
        ones = np.ones(len(self.table), np.float32)
        shape = (len(self.table), len(self.measured))
        return csr_array((ones, (np.arange(len(ones)), self.table)), shape=shape)

    def blocks(self) -> Iterator[slice]:
        """Split the genes into blocks that fit into little memory for all types."""
        for start in range(0, self.floor.shape[1], _GENES_AT_ONCE):
            yield slice(start, start + _GENES_AT_ONCE)

    def by_key(self, genes: slice) -> tuple[Floats, Floats]:
        """Mean log-ratio of every type over studies, and how many studies measured the gene."""
        by_table = csr_array(self._mean_of @ self.of_table)
        seen = by_table @ self.measured[:, genes].astype(np.float32)
        mean = (self._mean_of @ self.rise[:, genes]).toarray()
        mean += by_table @ self.floor[:, genes]
        mean /= np.maximum(seen, np.float32(1e-9))
        return mean, seen

    @cached_property
    def _mean_of(self) -> csr_array:
        _, of = np.unique(np.stack([self.key, self.study]), axis=1, return_inverse=True)
        part = (1 / np.bincount(of.ravel())[of.ravel()]).astype(np.float32)
        places = (self.key, np.arange(len(part)))
        return csr_array((part, places), shape=(self.keys, len(part)))

    def spread(self) -> Floats:
        """Spread of a gene's log-ratio between types, shape (genes,)."""
        size, known = np.zeros((2, self.floor.shape[1]), np.float32)
        for some in self.blocks():
            mean, seen = self.by_key(some)
            size[some], known[some] = (mean**2).sum(axis=0), (seen > 0).sum(axis=0)
        gain = np.sqrt(size / np.maximum(known, 1))
        # A gene that no table measured, or no cell of theirs lists, gets the usual value.
        listed = (known > 0) & (self.usual > _RAREST)
        return np.where(listed, gain, np.median(gain[listed])).astype(np.float32)


def _to_grid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round the result of a linear solve, whose last digits depend on the number of threads."""
    return np.asarray(np.rint(values * _GRID) / _GRID)


def _valued(source: Source) -> list[str]:
    used = np.unique(source.values.indices)
    return [source.genes[i] for i in used.tolist()]


def _spread(source: Source, at: Mapping[str, int]) -> csr_array:
    """Map the values of a source to the genes of the atlas."""
    place = np.array([at.get(gene, 0) for gene in source.genes], dtype=np.int32)
    values = source.values
    shape = (len(source.columns), len(at))
    return csr_array((values.data, place[values.indices], values.indptr), shape=shape)


def _matching(a: npt.NDArray[np.str_], b: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Return which known values are equal, shape (a, b)."""
    return np.asarray((a[:, None] == b[None, :]) & (a != "")[:, None])
