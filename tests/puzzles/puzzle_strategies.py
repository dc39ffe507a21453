"""Puzzles as nasty as the invariants allow."""

from __future__ import annotations

from hypothesis import strategies as st

from cello1.puzzles.puzzle import FORBIDDEN, Puzzle, label_key

NASTY_LABELS = (
    "CD8-positive, alpha-beta T cell",
    "Cell 2: T cell",
    "Context: lung",
    "Match the cells above to one of the following cell types:",
    'so-called "killer" cell',
    "naïve β-cell",
    "<think",
    "T\u00a0cell",
    "细胞 🧬",
)
NASTY_GENES = (
    "HLA-DRB1",
    "CSF2RA_ENSG00000198223",
    "Cell 2: A",
    "MT-CO1",
    "A B",
    "1",
    "α",
    'a"',
    "\\n",
)

text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
names = text.map(lambda s: s.replace("|", "").strip()).filter(
    lambda s: s and not FORBIDDEN.search(s)
)
labels = st.sampled_from(NASTY_LABELS) | names
genes = st.sampled_from(NASTY_GENES) | names.filter(lambda s: "," not in s)
contexts = st.tuples(text, st.sampled_from(["", " ", "Cell 1: A", "a | b", " Context: "])).map(
    lambda parts: "".join(parts)
)
cells = st.lists(genes, min_size=1, max_size=4)


@st.composite
def puzzles(draw: st.DrawFn) -> Puzzle:
    n = draw(st.integers(2, 5))
    candidates = draw(st.lists(labels, min_size=n, max_size=n + 2, unique_by=label_key))
    return Puzzle(
        context=draw(contexts.filter(lambda s: not FORBIDDEN.search(s.replace("|", "")))),
        cells=draw(st.lists(cells, min_size=n, max_size=n)),
        candidates=candidates,
        answer=draw(st.none() | st.permutations(candidates).map(lambda order: order[:n])),
        meta={"tissue": "lung", "cell_ids": [f"c{i}" for i in range(n)]},
    )
