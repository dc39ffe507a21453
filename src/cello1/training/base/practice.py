"""Simulate training puzzles without end, with new cells from mean profiles or from real cells.

A cell of a profile is a draw of counts at a random depth. Everything that differs between studies
is randomised as well, once per puzzle: gene-wise shifts (chemistry and donor), the amount of
ambient RNA of the tissue, the amount of mitochondrial and ribosomal RNA and MALAT1, which of these
the means lack, which genes were measured, and genes that no table has, such as pseudogenes. So the
model generalises to unseen studies.

Types are named by their label, a synonym or a wider term, or sometimes by an invented name, so that
the model has to read the list of candidates. Puzzle i of step t depends on (seed, t, i) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cello1.errors import InputError
from cello1.training.base.sources import Floats32, Ints, Sources

_PLACE = 50  # genes of a list
_FEWEST = 3  # smallest number of types in a puzzle
_KIN = 0.4  # share of puzzles of related types, such as sorted blood, which are the hard ones
_CITED = 3  # genes that are named for a type
_TELLS = 0.35  # log ratio from which a gene is evidence for a type
_RIVALS = 0.5  # weight of the other candidates' log ratios against it
MITOCHONDRIAL = {
    "MT-CO1": 0.17, "MT-CO2": 0.15, "MT-CO3": 0.16, "MT-ATP6": 0.10, "MT-CYB": 0.10,
    "MT-ND1": 0.08, "MT-ND2": 0.06, "MT-ND3": 0.06, "MT-ND4": 0.09, "MT-ND5": 0.025,
    "MT-ND4L": 0.02, "MT-ATP8": 0.01, "MT-ND6": 0.003,
}  # fmt: skip
NUCLEAR = "MALAT1"
# Genes that no table has, such as those that some pipelines count: (pattern, how many of its kind).
_STRANGERS = (("MT{mito}P{small}", 240), ("RPL{small}P{large}", 80), ("ENSG00000{id}", 80),
              ("ENSG00000{id}.{small}", 80), ("LOC{id}", 60), ("LINC0{id}", 60))  # fmt: skip
_SYLLABLES = ("ba", "do", "fe", "gu", "ka", "lo", "mi", "nu", "pra", "ro", "sta", "ti", "ve", "zo")
_SEXES = ("female", "male", "unknown")
_ETHNICITIES = (
    "European",
    "African American",
    "Han Chinese",
    "Asian",
    "Hispanic or Latin American",
)
# Common names of some labels.
COMMON = {
    "CD4-positive, alpha-beta T cell": ("CD4 T cell", "CD4+ T cell", "CD4 T"),
    "CD8-positive, alpha-beta T cell": ("CD8 T cell", "CD8+ T cell", "CD8 T"),
    "natural killer cell": ("NK cell", "NK"),
    "mature NK T cell": ("NKT cell",),
    "regulatory T cell": ("Treg", "T reg cell"),
    "plasmacytoid dendritic cell": ("pDC", "plasmacytoid DC"),
    "conventional dendritic cell": ("cDC", "classical dendritic cell"),
    "dendritic cell": ("DC",),
    "classical monocyte": ("CD14-positive monocyte", "CD14+ monocyte"),
    "CD14-positive monocyte": ("CD14+ monocyte", "classical monocyte"),
    "non-classical monocyte": ("CD16-positive monocyte", "CD16+ monocyte", "FCGR3A+ monocyte"),
    "pulmonary alveolar type 1 cell": ("AT1 cell", "alveolar type 1 cell"),
    "pulmonary alveolar type 2 cell": ("AT2 cell", "alveolar type 2 cell"),
    "hematopoietic stem cell": ("HSC",),
    "endothelial cell": ("vascular endothelial cell",),
    "endothelial cell of artery": ("arterial endothelial cell", "artery endothelial cell"),
    "vein endothelial cell": ("venous endothelial cell",),
    "endothelial cell of lymphatic vessel": ("lymphatic endothelial cell",),
    "fibroblast of lung": ("lung fibroblast",),
    "oligodendrocyte precursor cell": ("OPC",),
    "smooth muscle cell": ("SMC",),
    "epithelial cell of proximal tubule": ("proximal tubule cell",),
    "cardiac muscle cell": ("cardiomyocyte",),
    "type B pancreatic cell": ("beta cell",),
    "pancreatic A cell": ("alpha cell",),
    "pancreatic D cell": ("delta cell",),
    "pancreatic acinar cell": ("acinar cell",),
    "pancreatic ductal cell": ("ductal cell",),
    "platelet": ("thrombocyte", "megakaryocyte"),
    "erythrocyte": ("red blood cell",),
}


@dataclass(frozen=True)
class Size:
    """Size of the puzzles of a step."""

    cells: int
    genes: int
    distractors: int
    plain: bool = False  # every type is named by its label


@dataclass(frozen=True)
class Draft:
    """A puzzle before it is tokenized.

    Attributes
    ----------
    context
        What is known of the donor.
    cells
        Positions of genes, one array per cell.
    names
        Names of the candidates in the puzzle.
    whole
        For each candidate, whether it may be one token.
    types
        Position of each candidate in the list of types; for an invented name, that of its type.
    gold
        Position of the candidate of each cell.
    """

    context: str
    cells: list[Ints]
    names: list[str]
    whole: list[bool]
    types: Ints
    gold: Ints


class Practice:
    """Draws puzzles.

    Parameters
    ----------
    sources
        Mean profiles and lists of real cells.
    seed
        Seed for all random choices.
    real
        Share of the puzzles with real cells, where there are any.
    spelled
        Share of labels that are spelled word by word although they are one token.
    other
        Share of types that have another name than their label.
    invented
        Share of puzzles in which some types have invented names.
    """

    def __init__(
        self,
        sources: Sources,
        seed: int,
        *,
        real: float = 0.15,
        spelled: float = 0.2,
        other: float = 0.3,
        invented: float = 0.06,
    ) -> None:
        self.sources, self.seed = sources, seed
        self.real, self.spelled, self.other, self.invented = real, spelled, other, invented
        at = {gene: i for i, gene in enumerate(sources.genes)}
        # MALAT1 and the mitochondrial genes may be missing from all tables.
        self.genes = [*sources.genes, *(g for g in (NUCLEAR, *MITOCHONDRIAL) if g not in at)]
        at = {gene: i for i, gene in enumerate(self.genes)}
        strangers = _strangers()
        self.strangers = np.arange(len(self.genes), len(self.genes) + len(strangers))
        self.genes += strangers
        self.nuclear = at[NUCLEAR]
        self.mito = np.array([at[g] for g in MITOCHONDRIAL], np.int32)
        self.mito_shares = np.array(list(MITOCHONDRIAL.values()), np.float32)
        self.mito_shares /= self.mito_shares.sum()
        self.is_ribo = np.array([g.startswith(("RPL", "RPS")) for g in self.genes])
        self.is_ribo &= np.array(["K" not in g for g in self.genes])  # RPS6KA1 is a kinase
        self.is_mito = np.array([g.startswith("MT-") for g in self.genes])
        self.order = np.argsort(np.argsort(self.genes)).astype(np.float32) / len(self.genes)
        wider = [set(names) for names in sources.wider]
        self.shared = np.array([[len(a & b) for b in wider] for a in wider], np.float32)
        self.groups = self._groups()
        self.ribo, self.ribo_shares = self._ribosomal()
        self.pools = []
        for group in sources.lists:
            by_type: dict[int, list[int]] = {}
            for row, kind in enumerate(group.types):
                by_type.setdefault(int(kind), []).append(row)
            if len(by_type) >= _FEWEST:
                self.pools.append((group, by_type))
        if not self.groups and not self.pools:
            raise InputError(
                f"no table or donor has {_FEWEST} types or more, which a puzzle needs; give "
                "profiles of more types, or training puzzles"
            )
        if not self.groups:
            self.real = 1.0

    def _groups(self) -> list[tuple[int, int, dict[int, list[int]]]]:
        """List (table, group, columns by type), and set the sampling weight of each."""
        groups, weights = [], []
        for t, table in enumerate(self.sources.tables):
            for g in range(len(table.contexts)):
                by_type: dict[int, list[int]] = {}
                for column in np.flatnonzero(table.groups == g):
                    by_type.setdefault(int(table.types[column]), []).append(int(column))
                if len(by_type) < _FEWEST:
                    continue
                groups.append((t, g, by_type))
                # Tables of few marker genes have half the weight.
                many = len(table.contexts) > 5
                weights.append(len(by_type) ** 0.7 * (0.5 if many else 1.0))
        self.weights = np.array(weights) / max(np.sum(weights), 1e-9)
        self.sizes = np.array([len(by_type) for *_, by_type in groups])
        return groups

    def _ribosomal(self) -> tuple[Ints, Floats32]:
        """Return the usual composition of ribosomal RNA, for tables without it."""
        total = np.zeros(len(self.genes))
        for table in self.sources.tables:
            rows = self.is_ribo[table.genes]
            if rows.sum() > 60:
                mean = table.shares[:, rows].mean(axis=0)
                total[table.genes[rows]] += mean / max(mean.sum(), 1e-9)
        found = np.argsort(-total)[:90]
        found = found[total[found] > 0].astype(np.int32)
        shares = total[found] / max(total[found].sum(), 1e-9)
        return np.asarray(found, np.int32), np.asarray(shares, np.float32)

    def draw(self, step: int, i: int, size: Size) -> Draft:
        """Draw puzzle i of a step."""
        rng = np.random.default_rng([self.seed, step, i])
        if self.pools and rng.random() < self.real:
            group, by_type = self.pools[int(rng.integers(len(self.pools)))]
            types, distractors = self._choose(list(by_type), size, rng)
            cells = [self._mix(group.cells, by_type[t], rng) for t in types]
            context = group.context
        else:
            able = self.weights * (self.sizes >= min(size.cells, int(self.sizes.max())))
            t, g, by_type = self.groups[int(rng.choice(len(able), p=able / able.sum()))]
            table = self.sources.tables[t]
            types, distractors = self._choose(list(by_type), size, rng)
            columns = [by_type[k][int(rng.integers(len(by_type[k])))] for k in types]
            cells = self._cells(t, g, columns, rng)
            context = _context(table.contexts[g], rng)
        if size.genes < _PLACE:
            cells = [_thin(cell, size.genes, rng) for cell in cells]
        offered = np.array([*types, *distractors], np.int32)
        names, whole = self._names(offered, rng)
        if size.plain:
            names, whole = [self.sources.types[k] for k in offered], [True] * len(offered)
        by_name = sorted(range(len(names)), key=lambda j: names[j].casefold())
        order = by_name if rng.random() < 0.5 else rng.permutation(len(names)).tolist()
        place = {j: k for k, j in enumerate(order)}
        gold = np.array([place[j] for j in range(len(types))], np.int32)
        return Draft(
            context, cells, [names[j] for j in order], [whole[j] for j in order],
            offered[order], gold,
        )  # fmt: skip

    def _choose(
        self, types: list[int], size: Size, rng: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """Choose the types of the cells and the distractors; nested types rarely together.

        In some puzzles all are related to one, by the ancestors that they share.
        """
        nested = self.sources.nested
        order = [types[i] for i in rng.permutation(len(types))]
        if rng.random() < _KIN:
            near = self.shared[order[0], order] + rng.gumbel(size=len(order))
            near[0] = np.inf
            order = [order[i] for i in np.argsort(-near, kind="stable")]
        strict = rng.random() < 0.8
        chosen: list[int] = []
        for kind in order:
            if len(chosen) == size.cells:
                break
            if strict and any(nested[kind, o] or nested[o, kind] for o in chosen):
                continue
            chosen.append(kind)
        if len(chosen) < 2:
            chosen = order[:2]
        more = int(rng.integers(0, size.distractors + 1)) if size.distractors else 0
        others: list[int] = []
        pool = [k for k in order if k not in chosen] if rng.random() < 0.7 else []
        pool += rng.integers(len(self.sources.types), size=3 * more).tolist()
        for kind in pool:
            if len(others) == more:
                break
            if kind in chosen or kind in others:
                continue
            if any(nested[kind, o] or nested[o, kind] for o in chosen):
                continue
            others.append(kind)
        return chosen, others

    def _names(self, types: Ints, rng: np.random.Generator) -> tuple[list[str], list[bool]]:
        """Name the candidates."""
        labels, names = self.sources.types, []
        whole: list[bool] = []
        invent = rng.random() < self.invented
        share = 1.0 if invent and rng.random() < 0.3 else 0.3
        taken: set[str] = set()
        for kind in types.tolist():
            label = labels[kind]
            name = label
            if invent and rng.random() < share:
                parts = "".join(rng.choice(_SYLLABLES, size=int(rng.integers(2, 4))))
                name = f"{parts} cell"
            elif rng.random() < self.other:
                known = [*COMMON.get(label, ()), *self.sources.names[kind]]
                roll = rng.random()
                if roll < 0.6 and known:
                    name = known[int(rng.integers(len(known)))]
                elif roll < 0.9 and (up := self._wider(kind, types)):
                    name = up[int(rng.integers(len(up)))]
                elif label.endswith(("cell", "cyte", "blast", "phage", "neuron", "phil")):
                    name = f"{label}s"
            if name.casefold() in taken:
                name = label
            if name.casefold() in taken or "|" in name:
                name = f"{label} {len(taken) + 1}"
            taken.add(name.casefold())
            names.append(name)
            whole.append(rng.random() >= self.spelled)
        return names, whole

    def _wider(self, kind: int, types: Ints) -> list[str]:
        """Return wider names of a type that fit none of the others."""
        others = {
            name
            for other in types.tolist()
            if other != kind
            for name in (self.sources.types[other], *self.sources.wider[other])
        }
        return [name for name in self.sources.wider[kind] if name not in others]

    def _mix(self, cells: Ints, rows: list[int], rng: np.random.Generator) -> Ints:
        """Return a real cell, or a new ranking of the genes of two or three of its type."""
        if rng.random() < 0.5 or len(rows) < 3:
            cell = cells[rows[int(rng.integers(len(rows)))]]
            cell = cell[cell >= 0]
            keep = rng.random(len(cell)) < rng.uniform(0.8, 1.0)
            return np.asarray(cell[keep] if keep.sum() >= 5 else cell)
        parents = rng.choice(rows, size=int(rng.integers(2, 4)), replace=False)
        weights = rng.dirichlet(np.full(len(parents), 2.0))
        found: dict[int, float] = {}
        for parent, weight in zip(parents, weights, strict=True):
            cell = cells[parent][cells[parent] >= 0]
            for place, gene in enumerate(cell.tolist()):
                found[gene] = found.get(gene, 0.0) + weight * (1.0 - place / 60)
        genes = np.array(list(found), np.int32)
        score = np.array(list(found.values())) * np.exp(rng.normal(0, 0.25, len(genes)))
        return genes[np.argsort(-score, kind="stable")[:_PLACE]]

    def _cells(
        self, t: int, g: int, columns: Sequence[int], rng: np.random.Generator
    ) -> list[Ints]:
        """Draw cells from columns of a table, all of one simulated donor."""
        table = self.sources.tables[t]
        genes, size = table.genes, len(table.genes)
        chemistry = np.exp(
            rng.standard_normal(size, np.float32) * np.float32(abs(rng.normal(0, 0.45)))
        )
        ribo = self.is_ribo[genes]
        here = int(ribo.sum())
        roll = rng.random()
        level = 0.0 if roll < 0.12 else float(np.exp(rng.normal(0, 0.5)))
        chemistry = np.where(ribo, chemistry * level, chemistry)
        shares = table.shares[list(columns)] * chemistry
        members = np.flatnonzero(table.groups == g)
        ambient = (table.shares[members].mean(axis=0)) * chemistry
        part = rng.beta(1.2, 9.0) if rng.random() < 0.8 else rng.beta(2.0, 5.0)
        own = np.clip(part * np.exp(rng.normal(0, 0.4, (len(columns), 1))), 0, 0.6)
        own = own.astype(np.float32)
        shares = (1 - own) * shares + own * ambient
        more: list[tuple[Ints, Floats32]] = []
        if here < 40 and roll >= 0.4:
            lift = np.exp(rng.normal(np.log(0.12), 0.5)) * np.exp(rng.normal(0, 0.3, len(columns)))
            more.append((self.ribo, lift[:, None] * self.ribo_shares))
        if rng.random() < 0.6:
            mito = np.exp(rng.normal(np.log(0.05), 0.7)) * np.exp(rng.normal(0, 0.5, len(columns)))
            bent = self.mito_shares * np.exp(rng.normal(0, 0.3, len(self.mito_shares)))
            more.append((self.mito, np.clip(mito, 0, 0.5)[:, None] * bent))
        if rng.random() < 0.7:
            level = np.exp(rng.normal(np.log(0.02), 0.9))
            own_level = np.clip(level * np.exp(rng.normal(0, 0.6, len(columns))), 0, 0.4)
            more.append((np.array([self.nuclear], np.int32), own_level[:, None]))
        if rng.random() < 0.2:
            level = np.exp(rng.normal(np.log(0.03), 0.9))
            own_level = np.clip(level * np.exp(rng.normal(0, 0.5, len(columns))), 0, 0.4)
            found = rng.choice(self.strangers, int(rng.integers(3, 13)), replace=False)
            more.append((found, own_level[:, None] * rng.dirichlet(np.ones(len(found)))))
        if more:
            genes = np.concatenate([genes, *(found for found, _ in more)])
            shares = np.concatenate([shares, *(s.astype(np.float32) for _, s in more)], axis=1)
        if rng.random() < 0.2:  # not all genes were measured
            measured = rng.random(len(genes)) < rng.uniform(0.35, 0.95)
            genes, shares = genes[measured], shares[:, measured]
        elif rng.random() < 0.1:  # only variable genes
            spread = shares.max(axis=0) / (shares.mean(axis=0) + 1e-9)
            measured = spread > np.quantile(spread, rng.uniform(0.2, 0.6))
            genes, shares = genes[measured], shares[:, measured]
        depth = np.exp(rng.normal(np.log(3000), 0.6)) * np.exp(rng.normal(0, 0.45, len(columns)))
        depth = np.clip(depth, 400, 40_000)
        noise = rng.standard_normal(shares.shape, np.float32) * np.float32(rng.uniform(0.3, 0.7))
        expected = shares * np.exp(noise) * depth[:, None].astype(np.float32)
        counts = rng.poisson(expected).astype(np.float32)
        ties = self.order[genes] if rng.random() < 0.7 else rng.random(len(genes), np.float32)
        cells = []
        for row in counts - 0.5 * ties:
            top = np.argpartition(-row, min(_PLACE, len(row) - 1))[:_PLACE]
            top = top[np.argsort(-row[top], kind="stable")]
            top = top[row[top] > 0.49]  # at least one count, minus the random tie-breaker
            _, first = np.unique(genes[top], return_index=True)
            cells.append(genes[top[np.sort(first)]])
        return cells


def _strangers() -> list[str]:
    """Return names of genes as no table has them."""
    rng = np.random.default_rng(0)
    mito = [name.removeprefix("MT-") for name in MITOCHONDRIAL]
    names = {
        pattern.format(
            mito=mito[int(rng.integers(len(mito)))],
            small=rng.integers(1, 40),
            large=rng.integers(1, 99),
            id=rng.integers(100_000, 300_000),
        )
        for pattern, count in _STRANGERS
        for _ in range(count)
    }
    return sorted(names)


def _thin(cell: Ints, genes: int, rng: np.random.Generator) -> Ints:
    """Keep some genes of a list in their order."""
    if len(cell) <= genes:
        return cell
    return cell[np.sort(rng.permutation(len(cell))[:genes])]


def _context(known: tuple[str, str, str], rng: np.random.Generator) -> str:
    """Write the context of a donor like a build, with some fields missing as in real data."""
    tissue, disease, development = known
    if tissue in ("unknown", "multiple") or rng.random() < 0.1:
        tissue = "an unnamed tissue"
    sex = _SEXES[int(rng.integers(len(_SEXES)))]
    age = f"{int(rng.integers(20, 85))}-year-old stage"
    if development == "fetal":
        age = f"{int(rng.integers(8, 22))}th week post-fertilization stage"
    if rng.random() < 0.2:  # the layout of the published rows
        said = f"The cell is from a {sex} at the {age}, originating from the {tissue}."
        if disease != "normal":
            said += f" The patient has been diagnosed with {disease}."
        return f"{said} "
    donor = "" if sex == "unknown" else sex
    if rng.random() < 0.4:
        donor = f"{_ETHNICITIES[int(rng.integers(len(_ETHNICITIES)))]} {donor}".strip()
    article = "an" if donor[:1] in "AO" and donor else "a"
    person = f"{article} {donor} donor" if donor else "one donor"
    stage = f" at the stage '{age}'" if rng.random() < 0.5 else ""
    said = f"These cells were taken from {tissue} of {person}{stage}."
    if disease != "normal":
        return f"{said} The donor was diagnosed with {disease}."
    return said if rng.random() < 0.3 else f"{said} No disease is recorded."


def knowledge(practice: Practice, draws: int = 30, seed: int = 0) -> tuple[Floats32, Floats32]:
    """Estimate how informative each gene is for each type, and how often it is listed.

    Returns
    -------
    telling
        Shape (types, genes): log ratio of how often a gene is in the lists of the type and in
        those of the other types of its table; 0 where unknown.
    listed
        Shape (genes,): the highest share of lists in any column.
    """
    rng = np.random.default_rng([seed, 1])
    sources = practice.sources
    total = np.zeros((len(sources.types), len(practice.genes)), np.float32)
    count = np.zeros_like(total)
    listed = np.zeros(len(practice.genes), np.float32)

    def add(genes: Ints, shares: Floats32, types: npt.NDArray[Any]) -> None:
        base = shares.mean(axis=0) if len(shares) > 3 else shares.mean(axis=0) * 0.5 + 0.02
        ratio = np.log((shares + 0.02) / (base + 0.02))
        for row, kind in zip(ratio, types, strict=True):
            total[kind, genes] += row
            count[kind, genes] += 1
        listed[genes] = np.maximum(listed[genes], shares.max(axis=0))

    for table in sources.tables:
        shares = np.zeros((len(table.types), len(table.genes)), np.float32)
        for column, mean in enumerate(table.shares):
            noise = rng.standard_normal((draws, len(mean)), np.float32) * 0.5
            depth = np.exp(rng.normal(7.8, 0.5, (draws, 1))).astype(np.float32)
            counts = rng.poisson(mean * np.exp(noise) * depth)
            top = np.argpartition(-counts, _PLACE, axis=1)[:, :_PLACE]
            for row, found in zip(counts, top, strict=True):
                shares[column, found[row[found] > 0]] += 1 / draws
        add(table.genes, shares, table.types)
    for group in sources.lists:
        kinds = np.unique(group.types)
        shares = np.zeros((len(kinds), len(practice.genes)), np.float32)
        for k, kind in enumerate(kinds):
            rows = group.cells[group.types == kind]
            np.add.at(shares[k], rows[rows >= 0], 1 / len(rows))
        seen = np.flatnonzero(shares.max(axis=0) > 0).astype(np.int32)
        add(seen, shares[:, seen], kinds)
    for gene in (practice.nuclear, *practice.mito.tolist()):
        listed[gene] = 1.0
    # Values from a single table are shrunk more than those of several.
    return total / (count + 1.0), listed


def supporting(cell: Ints, types: Ints, telling: Floats32) -> list[list[int]]:
    """Choose genes of a cell that support each candidate more than the others.

    Parameters
    ----------
    cell
        Positions of the cell's genes.
    types
        Position of each candidate in the list of types.
    telling
        Log ratios, from :func:`knowledge`.

    Returns
    -------
    list of lists of int
        For each candidate positions of at most three genes, the best first.
    """
    told = telling[types][:, cell]
    contrast = told - _RIVALS * told.mean(axis=0)
    contrast[told < _TELLS] = -1.0
    order = np.argsort(-contrast, axis=1, kind="stable")[:, :_CITED]
    return [[int(cell[k]) for k in row if contrast[j, k] > 0] for j, row in enumerate(order)]
