"""The types on offer: a list, a file, a column of a reference, or the types of a tissue.

Names are labels or synonyms of the Cell Ontology, or common short names (`NK`, `CD14 Mono`,
`cDC2`, `Treg`; the table `names.csv`).
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from cello1.errors import InputError, brief
from cello1.puzzles.puzzle import FORBIDDEN, Puzzle, label_key
from cello1.scoring.ontology import suggestions, term_id, term_label
from cello1.texts import read_lines

NONE, UNKNOWN = "none of these", "unknown"
_SUGGESTED, _SHORT = 3, 4


@dataclass(frozen=True)
class Candidates:
    """The types on offer.

    Attributes
    ----------
    labels
        Each once, in the order given.
    given
        Label -> the user's name for it, where that differs.
    source
        Where they come from, for messages.
    is_guess
        Whether nobody named them, so that others may be added which fit better.
    """

    labels: list[str]
    given: dict[str, str] = field(default_factory=dict)
    source: str = "given"
    is_guess: bool = False


def read_candidates(
    given: str | Path | Iterable[str], *, unknown_types: bool = False
) -> Candidates:
    """Read the candidates.

    Parameters
    ----------
    given
        Labels; or a file with one on each line (lines that start with ``#`` are skipped).
        Of a pandas column the unique values are taken, sorted.
    unknown_types
        Accept labels that the Cell Ontology does not know.

    Raises
    ------
    InputError
        When there are fewer than two, or one is invalid or unknown.
    """
    if isinstance(given, str | Path):
        names = read_lines(Path(given), "a text file with one cell type on each line")
        source = f"read from {Path(given).name}"
    elif isinstance(given, pd.Series | pd.Categorical):
        names = sorted({str(value) for value in given if not pd.isna(value)})
        source = "types of the reference"
    else:
        names, source = [str(value) for value in given], "given"
    names = list({label_key(name): name.strip() for name in reversed(names)}.values())[::-1]
    for name in names:
        if not name or FORBIDDEN.search(name) or label_key(name) in (NONE, UNKNOWN):
            raise InputError(
                f"candidate {brief(name)} cannot be used; expected the name of a cell type "
                f"without '|' or line breaks, other than {NONE!r} and {UNKNOWN!r}"
            )
    found: dict[str, str] = {}
    unknown = []
    for name in names:
        label = understand(name)
        if label is None:
            unknown.append(name)
        found.setdefault(label or name, name)
    if unknown and not unknown_types:
        raise InputError(_not_known(unknown))
    if len(found) < 2:
        raise InputError(f"{len(found)} candidate(s) were given; expected at least two types")
    renamed = {label: name for label, name in found.items() if label_key(label) != label_key(name)}
    return Candidates(list(found), renamed, source)


def understand(name: str) -> str | None:
    """Return the label that a name stands for, or None when it is unknown.

    A label or synonym of the Cell Ontology is returned unchanged; a common short name becomes the
    label of the ontology.
    """
    short = _short_names().get(_plain(name))
    term = term_id(name)
    if term is not None and (short is None or label_key(str(term_label(term))) == label_key(name)):
        return name
    return short or (name if term is not None else None)


def close_names(name: str) -> list[str]:
    """Return labels that an unknown name may stand for, the closest first."""
    plain = _plain(name)
    known = _short_names()
    close = [known[k] for k in difflib.get_close_matches(plain, known, _SUGGESTED, 0.8)]
    words = set(plain.split())
    # A longer name that starts with a known short one: `NK proliferating` -> natural killer cell.
    inside = [known[k] for k in sorted(known, key=len, reverse=True) if set(k.split()) <= words]
    # Names of a few letters are close to everything.
    spelled = suggestions(name) if len(plain) > _SHORT else []
    return list(dict.fromkeys([*spelled, *close, *inside[:1]]))[:_SUGGESTED]


def tissue_types(puzzles: Sequence[Puzzle], tissues: Sequence[str]) -> list[str]:
    """Return the types that training puzzles have in some tissues, in alphabetical order.

    Without a tissue, the types of all puzzles.

    Raises
    ------
    InputError
        When no puzzle is of any of the tissues.
    """
    known = {str(p.meta.get("tissue")) for p in puzzles}
    if tissues and not known & set(tissues):
        raise InputError(
            f"the training puzzles know no type of {', '.join(tissues)}, only of "
            f"{', '.join(sorted(known)[:10])}; name the candidates"
        )
    return sorted(
        {
            label
            for p in puzzles
            if not tissues or str(p.meta.get("tissue")) in tissues
            for label in p.answer or ()
        }
    )


def _not_known(names: Sequence[str]) -> str:
    """Return one message for all unknown names, with suggestions."""
    told = []
    for name in names:
        close = close_names(name)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        told.append(f"candidate {name!r} is not in the Cell Ontology{hint}")
    return (
        f"{'; '.join(told)}; correct {'it' if len(names) == 1 else 'them'}, or allow such names "
        "with unknown_types=True (--unknown-types)"
    )


@cache
def _short_names() -> dict[str, str]:
    """Read the common short names: plain name -> label of the Cell Ontology."""
    text = (files("cello1.annotate") / "names.csv").read_text("utf-8")
    return {_plain(row["name"]): row["cell_type"] for row in csv.DictReader(text.splitlines())}


def _plain(name: str) -> str:
    """Normalise a name, so that `CD14+ Monocytes`, `CD14_mono` and `CD14 Mono` are close."""
    words = re.findall(r"[^\W_]+", name.casefold().replace("+", " "))
    words = [w.removesuffix("s") if len(w) > 3 else w for w in words]
    kept = [w for w in words if w not in ("cell", "positive", "pos")]
    return " ".join(kept or words)
