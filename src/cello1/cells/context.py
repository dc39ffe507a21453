"""What is known about the donor, in sentences.

Fields are those of the CELLxGENE schema (versions 5 to 7: several diseases or ethnicities may
be joined by ``||``; the organism moved from obs to uns). A field in which the cells of a group
differ is left out: it is never taken from the first cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cello1.cells.h5ad.categories import Columns
from cello1.cells.h5ad.read import Source
from cello1.cells.obs import Cells

FIELDS = ("sex", "development_stage", "self_reported_ethnicity", "tissue", "tissue_type", "disease")
# "European" and "unknown-like" words in uni- begin with a consonant when spoken.
_VOWEL = re.compile(r"(?!eu|uni)[aeiou]", re.IGNORECASE)
_NOT_ETHNIC = {"multiethnic", "not specified"}


def organism_of(source: Source, cells: Cells) -> str | None:
    """Return the organism of the file, or else of the cells that are kept."""
    return source.organism or cells.constant("organism", np.flatnonzero(cells.keep))


def group_context(
    cells: Columns,
    members: npt.NDArray[np.intp],
    organism: str | None,
    extra: Mapping[str, str],
) -> str:
    """Describe the donor of a group of cells in a few sentences.

    Parameters
    ----------
    cells
        The file's observations.
    members
        Positions of the group's cells.
    organism
        Named only when it is not human.
    extra
        Column -> sentence with ``{value}``, appended in the given order.
    """
    known = {name: cells.constant(name, members) for name in FIELDS}
    sentences = [_origin(known)]
    if organism is not None and organism.casefold() not in ("homo sapiens", "human"):
        sentences.append(f"The species is {organism}.")
    if disease := known["disease"]:
        sentences.append(_disease(disease))
    for name, sentence in extra.items():
        if value := cells.constant(name, members):
            sentences.append(sentence.replace("{value}", value))
    return " ".join(" ".join(sentence.split()) for sentence in sentences)


def _origin(known: Mapping[str, str | None]) -> str:
    sample = known["tissue"] or "an unnamed tissue"
    if (kind := known["tissue_type"]) and kind not in ("tissue", "primary cell culture"):
        sample = f"{sample} ({kind})"
    elif kind == "primary cell culture":
        sample = f"a culture of {sample} cells"
    donor = " ".join(part for part in (_ethnicity(known), known["sex"]) if part)
    article = "an" if _VOWEL.match(donor) else "a"
    person = f"{article} {donor} donor" if donor else "one donor"
    stage = f" at the stage '{known['development_stage']}'" if known["development_stage"] else ""
    return f"These cells were taken from {sample} of {person}{stage}."


def _ethnicity(known: Mapping[str, str | None]) -> str | None:
    value = known["self_reported_ethnicity"]
    if value is None or value.casefold() in _NOT_ETHNIC:
        return None
    return _list(value)


def _disease(value: str) -> str:
    names = [name for name in _parts(value) if name.casefold() != "normal"]
    if not names:
        return "No disease is recorded."
    return f"The donor was diagnosed with {_list(' || '.join(names))}."


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split("||") if part.strip()]


def _list(value: str) -> str:
    parts = _parts(value)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
