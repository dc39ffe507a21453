"""Where a text speaks of a cell or of a type: the many ways in which people and models name them.

`CD4-positive, alpha-beta T cell` is written `CD4+ T cells`, `endothelial cell of lymphatic vessel`
is written `lymphatic endothelium`, and `type B pancreatic cell` is a `beta cell`. A name counts
only when it fits one of the candidates: `T cell` says nothing while CD4 and CD8 T cells are on
offer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.scoring.ontology import synonyms

# Written differently, meant alike. Every replacement keeps line breaks.
_PLAIN = (
    (re.compile(r"\*+|`+|__+|^[ \t]*#+[ \t]*", re.MULTILINE), ""),
    (re.compile(r"[\u2192\u21d2\u27f6\u279c]|=+>|-+>"), "->"),
    (re.compile(r"[\u2010-\u2015\u2212]"), "-"),
    (re.compile(r"[\u2018\u2019]"), "'"),
    (re.compile("\u03b1"), "alpha"),
    (re.compile("\u03b2"), "beta"),
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
}
_ALIKE = (
    ("endothelial cell", "endothelium"),
    ("epithelial cell", "epithelium"),
    ("artery", "arterial"),
    ("vein", "venous"),
)
# Words that name no type when they stand alone.
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
_RANGE = re.compile(r"(\d+)\s*(?:-|\bto\b)\s*(\d+)")


class Mention(NamedTuple):
    """A place where a text names cells or a candidate.

    Attributes
    ----------
    start, end
        Positions in the text.
    cells
        Numbers of the cells, from 1; empty when it is a type.
    label
        Position of the candidate, or None when it is a cell.
    plural
        A type named in the plural, as in general knowledge ("beta cells secrete INS").
    """

    start: int
    end: int
    cells: tuple[int, ...]
    label: int | None
    plural: bool = False


def plain(text: str) -> str:
    """Take the markup out of a text and write its arrows, dashes and Greek letters alike."""
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
    """The names under which the candidates of one puzzle go."""

    def __init__(self, puzzle: Puzzle) -> None:
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
        longest_first = sorted(names, key=lambda name: (-len(name), name))
        self._find = re.compile(
            rf"(?<![\w+-])({'|'.join(map(_pattern, longest_first))})(e?s)?(?![\w+]|-(?!>))",
            re.IGNORECASE,
        )

    def find(self, text: str) -> list[Mention]:
        """Find every mention of a candidate."""
        found = []
        for match in self._find.finditer(text):
            name = _key(match[1].casefold())
            if name in ("tcell", "bcell") and _QUALIFIED.search(text, 0, match.start()):
                continue  # `naive B cell` and `CD4+ T cell` are other types than these
            owner = self._owner[name]
            found.append(Mention(match.start(), match.end(), (), owner, bool(match[2])))
        return found


@cache
def _names(label: str) -> frozenset[str]:
    """Return the names of one type, lower case: whole, short, reordered, and telling parts."""
    others = [" ".join(name.casefold().split()) for name in synonyms(label)]
    own = set(_forms(label))
    # Parts of synonyms would mislead: `plasmacytoid monocyte` is a dendritic cell.
    parts = {part for form in own for part in _parts(form)}
    whole = {form for name in others for form in _forms(name)}
    return frozenset(own | parts | whole | {name.casefold() for name in _SHORT.get(label, ())})


def _forms(name: str) -> Iterator[str]:
    """Write a name in other ways: 'CD4+ T cell', 'lung fibroblast', 'lymphatic endothelium'."""
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
    """Yield the shorter names a type may go by, as far as they tell anything."""
    words = form.split(" of ")[0].split()
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            part = words[start:end]
            plain_words = [w.strip("+,").removesuffix("-positive") for w in part]
            telling = [w for w in plain_words if w not in _WEAK and len(w) >= 4 and w[:2] != "cd"]
            ends_well = end == len(words) or words[end] == "cell" or len(part) == 1
            if part == words or (telling and ends_well):
                yield " ".join(part)
    for noun in ("t cell", "b cell"):
        if f" {form}".endswith(f" {noun}"):
            yield noun


def _pattern(name: str) -> str:
    """Let blanks and hyphens of a name vary."""
    parts = [re.escape(part) for part in re.split(r"[\s-]+", name)]
    return r"[\s-]*".join(parts) if "-" in name else r"[\s-]+".join(parts)


def _key(name: str) -> str:
    """Return a name without blanks and hyphens, in which all its spellings agree."""
    return re.sub(r"[\s-]+", "", name)
