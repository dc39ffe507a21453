"""Questions and answers from the atlas: markers of a type, type of a list, two types compared.

Every question depends on (seed, number) alone and has close distractors: types that are near in the
Cell Ontology, or genes of such types. Answers come from the atlas. A list of genes is drawn from
their frequencies in one source, and is asked about only if the atlas finds its type among those on
offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from cello1.atlas import Atlas
from cello1.errors import InputError
from cello1.puzzles.prompt import Message
from cello1.scoring.ontology import above_of, likeness, term_label

Kind = Literal["markers", "which", "type", "between"]
Floats = npt.NDArray[np.float32]
# Weights of the kinds of questions; lists are unlimited, markers of a type are not.
SHARES: dict[Kind, float] = {"markers": 0.1, "which": 0.25, "type": 0.45, "between": 0.2}
SYSTEM = (
    "You know which genes tell cell types apart in single-cell RNA sequencing data. Answer in one "
    "line, from what most data sets agree on."
)
_SPEAKS, _SILENT = 0.7, 0.1  # log-odds above which a gene is a marker, and below which it is not
_LISTED = 0.05  # smallest share of cells that list a marker
_FEWEST = 5  # smallest number of markers of a type that is asked about
_NEAR = 12
_OFFERED = (4, 8)
_SHOWN = 12
_TRIES = 20

_WORDS: dict[Kind, tuple[str, ...]] = {
    "markers": (
        "Name {n} genes that mark {a}.",
        "Which {n} genes speak most for {a}?",
        "{a}: list {n} marker genes.",
    ),
    "which": (
        "Which of these genes speak for {a}: {genes}?",
        "Of {genes}, which are markers of {a}?",
        "Pick the genes that mark {a} from this list: {genes}.",
    ),
    "type": (
        "A cell expresses most, highest first: {genes}. Which of these is it: {types}?",
        "Of {types}, which type has a cell with the top genes {genes}?",
        "Top genes of a cell: {genes}. Its type is one of {types}. Which?",
    ),
    "between": (
        "What tells {a} from {b}?",
        "Which genes tell {a} and {b} apart?",
        "{a} or {b}: which genes decide?",
    ),
}


class Question(NamedTuple):
    """A question with its answer.

    Attributes
    ----------
    kind
        Kind of the question.
    turns
        The chat that asks.
    response
        The answer.
    """

    kind: Kind
    turns: tuple[Message, ...]
    response: str


@dataclass(frozen=True)
class Facts:
    """The types of an atlas with their markers, to draw questions from.

    Attributes
    ----------
    atlas
        The atlas.
    lengths
        Smallest and largest number of genes in a list.
    """

    atlas: Atlas
    lengths: tuple[int, int] = (20, 50)

    @cached_property
    def _columns(self) -> tuple[csr_array, list[str]]:
        """Frequencies of the genes of the atlas for every column of its tables, and their types."""
        at = {gene: i for i, gene in enumerate(self.atlas.genes)}
        data: list[npt.NDArray[Any]] = []
        places: list[npt.NDArray[Any]] = []
        lengths, keys = [0], []
        for source in (s for s in self.atlas.sources if s.is_table):
            place = np.array([at.get(gene, -1) for gene in source.genes])
            values = csr_array(source.values)
            for row, column in enumerate(source.columns):
                part = slice(values.indptr[row], values.indptr[row + 1])
                where = place[values.indices[part]]
                data.append(values.data[part][where >= 0])
                places.append(where[where >= 0])
                lengths.append(len(data[-1]))
                keys.append(column.key)
        if not keys:
            raise InputError("the atlas has no tables, so there is nothing to be learned from it")
        shape = (len(keys), len(at))
        content = (np.concatenate(data), np.concatenate(places), np.cumsum(lengths))
        return csr_array(content, shape=shape, dtype=np.float32), keys

    @cached_property
    def _known(self) -> tuple[list[str], Floats, Floats]:
        """Types, log-odds of genes, and share of cells that list each gene, (types, genes)."""
        columns, of = self._columns
        keys = sorted({*of})
        rows = self.atlas.rows([term_label(key) or key for key in keys])
        share = np.zeros_like(rows)
        for i, key in enumerate(keys):
            own = [k for k, other in enumerate(of) if other == key]
            share[i] = columns[own].mean(axis=0)
        enough = ((rows > _SPEAKS) & (share > _LISTED)).sum(axis=1) >= _FEWEST
        kept = [key for key, fits in zip(keys, enough, strict=True) if fits]
        if len(kept) < _OFFERED[0]:
            raise InputError(
                f"the atlas knows markers of {len(kept)} types; expected {_OFFERED[0]} at least"
            )
        return kept, rows[enough], share[enough]

    @property
    def keys(self) -> list[str]:
        """The types that are asked about: Cell Ontology ids, or labels of sources."""
        return self._known[0]

    @cached_property
    def labels(self) -> list[str]:
        """Labels of the types."""
        return [term_label(key) or key for key in self.keys]

    @cached_property
    def _markers(self) -> list[list[int]]:
        """Markers of each type, sorted by log-odds times frequency."""
        _, rows, share = self._known
        worth = np.where((rows > _SPEAKS) & (share > _LISTED), rows * share, 0)
        order = np.argsort(-worth, axis=1, kind="stable")[:, :_SHOWN]
        return [[int(g) for g in of if worth[i, g] > 0] for i, of in enumerate(order)]

    @cached_property
    def _near(self) -> list[list[int]]:
        """The nearest types that are neither ancestors nor descendants of each, nearest first."""
        like = likeness(self.keys, self.keys)
        over = [above_of(key) for key in self.keys]
        found = []
        for i, key in enumerate(self.keys):
            order = np.argsort(-like[i], kind="stable")
            apart = [
                int(j) for j in order
                if j != i and self.keys[j] not in over[i] and key not in over[j]
            ]  # fmt: skip
            found.append(apart)
        return found

    def ask(self, seed: int, number: int) -> Question:
        """Draw a question; it depends on (seed, number) alone."""
        rng = np.random.default_rng([seed, number])
        kinds = list(SHARES)
        kind = kinds[int(rng.choice(len(kinds), p=list(SHARES.values())))]
        for _ in range(_TRIES):
            fill, response = getattr(self, f"_ask_{kind}")(rng)
            if response:
                break
        else:  # no such question could be drawn; every type has markers
            kind = "markers"
            fill, response = self._ask_markers(rng)
        wording = _WORDS[kind][int(rng.integers(len(_WORDS[kind])))]
        asked = wording.format(**fill)
        asked = asked[0].upper() + asked[1:] if wording.startswith("{a}") else asked
        return Question(kind, (Message("system", SYSTEM), Message("user", asked)), response)

    def _names(self, genes: Sequence[int]) -> str:
        return ", ".join(self.atlas.genes[g] for g in genes)

    def _type(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self.keys)))

    def _distractors(self, i: int, number: int, rng: np.random.Generator) -> list[int]:
        """Draw distractors of a type: about half of them from its nearest."""
        near, far = self._near[i][:_NEAR], self._near[i][_NEAR:]
        first = min(len(near), (number + 1) // 2 if far else number)
        drawn = [near[k] for k in rng.permutation(len(near))[:first]]
        return drawn + [far[k] for k in rng.permutation(len(far))[: number - first]]

    def _ask_markers(self, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
        i = self._type(rng)
        n = int(rng.integers(_FEWEST, min(10, len(self._markers[i])) + 1))
        return {"a": self.labels[i], "n": n}, f"{self._names(self._markers[i][:n])}."

    def _ask_which(self, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
        i, rows = self._type(rng), self._known[1]
        right = self._markers[i][: int(rng.integers(2, 6))]
        wrong: list[int] = []
        for j in self._distractors(i, 6, rng):
            wrong += [g for g in self._markers[j] if rows[i, g] < _SILENT][:3]
        wrong = list(dict.fromkeys(wrong))
        if len(wrong) < 3:
            return {}, ""
        wrong = [wrong[k] for k in rng.permutation(len(wrong))[: _SHOWN - len(right)]]
        mixed = [*right, *wrong]
        shown = [mixed[k] for k in rng.permutation(len(mixed))]
        answer = f"{self._names([g for g in shown if g in right])}."
        return {"a": self.labels[i], "genes": self._names(shown)}, answer

    def _ask_between(self, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
        i = self._type(rng)
        j = self._distractors(i, 1, rng)[0]
        parts = []
        for a, b in ((i, j), (j, i)):
            if not (genes := self._against(a, b)):
                return {}, ""
            parts.append(f"{self._names(genes)} speak for {self.labels[a]}")
        return {"a": self.labels[i], "b": self.labels[j]}, "; ".join(parts) + "."

    def _against(self, a: int, b: int, most: int = 4) -> list[int]:
        """Return genes that cells of one type list and cells of the other do not."""
        _, rows, share = self._known
        gain = rows[a] - rows[b]
        worth = np.where((rows[a] > _SPEAKS) & (gain > _SPEAKS) & (share[a] > _LISTED), gain, 0)
        worth *= share[a]
        best = np.argpartition(-worth, most)[:most]
        return [int(g) for g in best[np.argsort(-worth[best], kind="stable")] if worth[g] > 0]

    def list_genes(self, column: int, length: int, rng: np.random.Generator) -> list[int]:
        """Draw the list of a cell: genes are included with their frequency in the source."""
        shares, _ = self._columns
        part = slice(shares.indptr[column], shares.indptr[column + 1])
        often, genes = shares.data[part], shares.indices[part]
        there = rng.random(len(often)) < often
        # Genes that are listed more often tend to be expressed more.
        rank = np.log(often[there]) + rng.normal(0, 0.5, int(there.sum()))
        return [int(g) for g in genes[there][np.argsort(-rank, kind="stable")][:length]]

    def _ask_type(self, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
        _, of = self._columns
        i = self._type(rng)
        own = [k for k, key in enumerate(of) if key == self.keys[i]]
        shortest, longest = self.lengths
        length = int(rng.integers(shortest, longest + 1))
        genes = self.list_genes(own[int(rng.integers(len(own)))], length, rng)
        if len(genes) < min(_FEWEST, shortest):
            return {}, ""
        types = [i, *self._distractors(i, int(rng.integers(*_OFFERED)), rng)]
        score = self._known[1][np.ix_(types, genes)].sum(axis=1)
        if int(np.argmax(score)) != 0:
            return {}, ""  # the atlas would give another answer
        rival = types[1 + int(np.argmax(score[1:]))]
        rows = self._known[1]
        gain = rows[i, genes] - rows[rival, genes]
        why = [genes[k] for k in np.argsort(-gain, kind="stable")[:3] if gain[k] > _SPEAKS]
        if not why:
            return {}, ""
        offered = [self.labels[types[k]] for k in rng.permutation(len(types))]
        speak = "speaks" if len(why) == 1 else "speak"
        answer = f"{self.labels[i]}: {self._names(why)} {speak} for it."
        return {"genes": self._names(genes), "types": " | ".join(offered)}, answer
