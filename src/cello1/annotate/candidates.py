"""The types on offer: a list, a file, a column of a reference, or the types of a tissue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from cello1.errors import InputError, brief
from cello1.puzzles.puzzle import FORBIDDEN, Puzzle, label_key
from cello1.scoring.ontology import suggestions, term_id

NONE, UNKNOWN = "none of these", "unknown"


def read_candidates(given: str | Path | Iterable[str], *, unknown_types: bool = False) -> list[str]:
    """Return the candidates, each once, in the order given.

    Parameters
    ----------
    given
        Labels; or a file with one on each line (lines that start with ``#`` are passed over).
        A pandas column counts as its different values, sorted.
    unknown_types
        Accept labels that the Cell Ontology does not know.

    Raises
    ------
    InputError
        When there are fewer than two, or one cannot be used or is not in the ontology.
    """
    if isinstance(given, str | Path):
        labels = _read_lines(Path(given))
    elif isinstance(given, pd.Series | pd.Categorical):
        labels = sorted({str(value) for value in given if not pd.isna(value)})
    else:
        labels = [str(value) for value in given]
    labels = list({label_key(label): label.strip() for label in reversed(labels)}.values())[::-1]
    for label in labels:
        if not label or FORBIDDEN.search(label) or label_key(label) in (NONE, UNKNOWN):
            raise InputError(
                f"candidate {brief(label)} cannot be used; expected the name of a cell type "
                f"without '|' or line breaks, other than {NONE!r} and {UNKNOWN!r}"
            )
    if len(labels) < 2:
        raise InputError(f"{len(labels)} candidate(s) were given; expected at least two types")
    if not unknown_types:
        _check_known(labels)
    return labels


def tissue_types(puzzles: Sequence[Puzzle], tissues: Sequence[str]) -> list[str]:
    """Return the types that training puzzles show in some tissues, in alphabetical order.

    With no tissue named, the types of all puzzles.

    Raises
    ------
    InputError
        When the puzzles know none of the tissues.
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


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"candidates cannot be read from {path} ({error}); expected a text file with one cell "
            "type on each line"
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _check_known(labels: Sequence[str]) -> None:
    for label in labels:
        if term_id(label) is None:
            close = suggestions(label)
            hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
            raise InputError(
                f"candidate {label!r} is not in the Cell Ontology{hint}; correct it, or allow such "
                "names with unknown_types=True (--unknown-types)"
            )
