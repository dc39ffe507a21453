"""Where a text names a cell or a type, in the many ways of people and models.

`CD4-positive, alpha-beta T cell` is written `CD4+ T cells`, `endothelial cell of lymphatic vessel`
is written `lymphatic endothelium`, and `type B pancreatic cell` is a `beta cell`. A name counts
only if it fits exactly one of the candidates: `T cell` says nothing while CD4 and CD8 T cells are
on offer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.scoring.ontology import synonyms

# Different spellings of the same. Every replacement keeps line breaks.
_PLAIN = (
    (re.compile(r"\*+|`+|__+|^[ \t]*#+[ \t]*", re.MULTILINE), ""),
    (re.compile(r"[\u2192\u21d2\u27f6\u279c]|=+>|-+>"), "->"),
    (re.compile(r"[\u2010-\u2015\u2212]"), "-"),
    (re.compile(r"[\u2018\u2019]"), "'"),
    (re.compile("\u03b1"), "alpha"),
    (re.compile("\u03b2"), "beta"),
    (re.compile("\u03b3"), "gamma"),
    (re.compile("\u03b4"), "delta"),
    (re.compile("\u03b5"), "epsilon"),
    (re.compile("alphabeta"), "alpha-beta"),
    (re.compile("\u207a"), "+"),
    (re.compile("\u207b"), "-"),
)
_SHORT = {
    "natural killer cell": ("NK cell", "NK"),
    "pulmonary alveolar type 1 cell": ("AT1 cell", "AT1", "alveolar type 1 cell"),
    "pulmonary alveolar type 2 cell": ("AT2 cell", "AT2", "alveolar type 2 cell"),
    "smooth muscle cell": ("SMC",),
    "classical monocyte": ("CD14+ monocyte", "CD14 monocyte"),
    "non-classical monocyte": ("CD16+ monocyte", "CD16 monocyte"),
    "dendritic cell": ("DC",),
    "macrophage": ("alveolar macrophage",),
    "microglial cell": ("microglia",),
    "pancreatic a cell": ("alpha cell", "alpha"),
    "type b pancreatic cell": ("beta cell", "beta"),
    "pancreatic d cell": ("delta cell", "delta"),
    "pancreatic epsilon cell": ("epsilon cell", "epsilon"),
}
_ALIKE = (
    ("endothelial cell", "endothelium"),
    ("epithelial cell", "epithelium"),
    ("artery", "arterial"),
    ("vein", "venous"),
)
# Words that name no type by themselves.
_WEAK = frozenset(
    re.split(
        r"\s+",
        """cell cells type of the a b i ii 1 2 alpha-beta gamma-delta positive negative classical
        non-classical naive memory mature immature regulatory central effector activated derived
        thymus-derived natural killer artery arterial vein venous vessel pulmonary lung human core
        islet pancreatic red white blood large small resident inflammatory patrolling t""",
    )
)
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
_CELL = re.compile(
    r"\bcell\s*(?:no\.?\s*|number\s*|\#\s*)?(?P<one>\d+)"
    r"(?P<more>(?:\s*(?:/|&|,?\s*\band\b|\bor\b)\s*(?:cell\s*)?\d+(?![\w+]))*)"
    r"|\bcells\s*\#?(?P<many>\d+(?:\s*(?:,\s*(?:and|or)?|&|/|-|\band\b|\bor\b|\bto\b)"
    r"\s*(?:cell\s*)?\d+(?![\w+]))*)"
    r"|\bthe\s+(?P<ordinal>" + "|".join(_ORDINALS) + r")\s+cell\b(?!\s+type)",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(
    r"(?:\bCD\d+\w*(?:\+|-positive)?|naive|memory|regulatory|cytotoxic|helper|effector|plasma)"
    r"(?:,? alpha-beta)?[\s-]+$",
    re.IGNORECASE,
)
# Pieces of names; blanks and hyphens between them may vary.
_ATOM, _GAP = re.compile(r"[\w+]+|[^\w\s+-]"), " \t\r\n\f\v-"
_RANGE = re.compile(r"(\d+)\s*(?:-|\bto\b)\s*(\d+)")


class Mention(NamedTuple):
    """A place where a text names cells or a candidate.

    Attributes
    ----------
    start, end
        Positions in the text.
    cells
        Numbers of the cells, from 1; empty for a type.
    label
        Index of the candidate, or None for a cell.
    plural
        Whether a type is in the plural, as in general statements ("beta cells secrete INS").
    """

    start: int
    end: int
    cells: tuple[int, ...]
    label: int | None
    plural: bool = False


def plain(text: str) -> str:
    """Strip the markup of a text and unify its arrows, dashes and Greek letters."""
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    return text


def find_cells(text: str, n_cells: int) -> list[Mention]:
    """Find every reference to cells by number, ranges and lists included."""
    found = []
    for match in _CELL.finditer(text):
        if match["ordinal"]:
            numbers = [_ORDINALS.index(match["ordinal"].lower()) + 1]
        else:
            said = match["many"] or match["one"] + match["more"]
            numbers = [int(n) for n in re.findall(r"\d+", said)]
            for low, high in _RANGE.findall(said if match["many"] else ""):
                numbers += range(int(low), min(int(high), n_cells) + 1)
        cells = tuple(sorted({n for n in numbers if 1 <= n <= n_cells}))
        if cells:
            found.append(Mention(match.start(), match.end(), cells, None))
    return found


class Names:
    """The names of the candidates of one puzzle."""

    def __init__(self, puzzle: Puzzle) -> None:
        self.n_cells, self.labels = len(puzzle.cells), puzzle.candidates
        owners: dict[str, set[int]] = {}
        for position, label in enumerate(puzzle.candidates):
            for name in _names(label_key(label)):
                owners.setdefault(name, set()).add(position)
        full = puzzle.candidate_index
        genes = {gene.casefold() for cell in puzzle.cells for gene in cell}
        names = {
            name: full.get(name, min(of))
            for name, of in sorted(owners.items())
            if name in full or (len(of) == 1 and name not in genes)
        }
        self._owner = {_key(name): position for name, position in names.items()}
        pieces = [_ATOM.findall(name.casefold()) for name in names]
        self._most = max(map(len, pieces))
        begins = {"".join(atoms[:n]) for atoms in pieces for n in (1, 2, len(atoms))}
        self._begins = begins | {f"{name}{s}" for name in begins for s in ("s", "es")}

    def find(self, text: str) -> list[Mention]:
        """Find every mention of a candidate, the longest name first where several begin."""
        atoms = list(_ATOM.finditer(text))
        folded = [atom[0].casefold() for atom in atoms]
        found, i = [], 0
        while i < len(atoms):
            start = atoms[i].start()
            mention = None
            if folded[i] in self._begins and not (start and text[start - 1] == "-"):
                mention = self._at(text, atoms, folded, i)
            if mention is None:
                i += 1
                continue
            j, owner, plural = mention
            found.append(Mention(start, atoms[j].end(), (), owner, plural))
            i = j + 1
        return found

    def _at(
        self, text: str, atoms: list[re.Match[str]], folded: list[str], i: int
    ) -> tuple[int, int, bool] | None:
        """Return last atom, candidate and plural of the longest name that begins at an atom."""
        last = i
        while last + 1 < min(len(atoms), i + self._most):
            if text[atoms[last].end() : atoms[last + 1].start()].strip(_GAP):
                break
            last += 1
        for j in range(last, i - 1, -1):
            end = atoms[j].end()
            if text[end : end + 1] == "-" and text[end + 1 : end + 2] != ">":
                continue
            key = "".join(folded[i : j + 1])
            for name in (key, key.removesuffix("s"), key.removesuffix("es")):
                owner = self._owner.get(name)
                if owner is None:
                    continue
                # `naive B cell` and `CD4+ T cell` are other types than these.
                other = name in ("tcell", "bcell") and _QUALIFIED.search(
                    text, max(0, atoms[i].start() - 80), atoms[i].start()
                )
                return None if other else (j, owner, name != key)
        return None


@lru_cache(maxsize=64)
def names_of(puzzle: Puzzle) -> Names:
    """Return the names of a puzzle; those of the last ones asked for are kept."""
    return Names(puzzle)


@cache
def _names(label: str) -> frozenset[str]:
    """Return the names of one type in lower case: full, short, reordered, and specific parts."""
    others = [" ".join(name.casefold().split()) for name in synonyms(label)]
    own = set(_forms(label))
    # Parts of synonyms would mislead: `plasmacytoid monocyte` is a dendritic cell.
    parts = {part for form in own for part in _parts(form)}
    whole = {form for name in others for form in _forms(name)}
    return frozenset(own | parts | whole | {name.casefold() for name in _SHORT.get(label, ())})


def _forms(name: str) -> Iterator[str]:
    """Yield other forms of a name: 'CD4+ T cell', 'lung fibroblast', 'lymphatic endothelium'."""
    short = name.replace(" thymus-derived", "").replace(", alpha-beta", "")
    short = short.replace("lymphocyte", "cell").replace("-cell", " cell")
    forms = [name, short]
    for sign in ("+", ""):
        signed = short.replace("-positive", sign)
        words = signed.split()
        forms.append(signed)
        if "memory" in words:  # memory CD4+ T cell
            forms.append(" ".join(["memory", *(w for w in words if w != "memory")]))
    if " of " in short:
        what, where = short.split(" of ", 1)
        where = where.removeprefix("the ").removesuffix(" vessel")
        forms += [f"{where} {what}", f"{what} of the {where}"]
    forms += [form.removesuffix(" cell") for form in forms if len(form.split()) > 2]
    forms += [f"{form.split()[-1]}, {' '.join(form.split()[:-1])}" for form in forms if " " in form]
    for form in forms:
        yield form
        for said, alike in _ALIKE:
            if said in form:
                yield form.replace(said, alike)


def _parts(form: str) -> Iterator[str]:
    """Yield the shorter names of a type that are specific enough."""
    words = form.split(" of ")[0].split()
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            part = words[start:end]
            plain_words = [w.strip("+,").removesuffix("-positive") for w in part]
            telling = [w for w in plain_words if w not in _WEAK and len(w) >= 4 and w[:2] != "cd"]
            ends_well = end == len(words) or words[end] == "cell" or len(part) == 1
            if part == words or (telling and ends_well):
                yield " ".join(part).strip(",")
    for noun in ("t cell", "b cell"):
        if f" {form}".endswith(f" {noun}"):
            yield noun


def _key(name: str) -> str:
    """Return a name without blanks and hyphens, in which its spellings agree."""
    return re.sub(r"[\s-]+", "", name)
