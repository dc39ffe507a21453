"""Show the contents of the atlas: types with their genes, sources, tissues and neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cello1.atlas.atlas import Atlas
from cello1.atlas.tissues import system
from cello1.errors import InputError, brief
from cello1.scoring.ontology import likeness, suggestions, term_id, term_label

_GENES, _NEAREST = 20, 5


def describe(atlas: Atlas, label: str, *, tissue: str | None = None) -> dict[str, Any]:
    """Describe a type: how it is known, the genes that support it, where it was observed.

    Raises
    ------
    InputError
        When the atlas does not know it; the message suggests similar names.
    """
    known = atlas.knows(label)
    if known.how == "not at all":
        near = [name for name in suggestions(label) if atlas.knows(name).how != "not at all"]
        hint = f"; is it {' or '.join(near)}?" if near else ""
        raise InputError(f"the atlas knows nothing of {brief(label)}{hint}")
    where = None if tissue is None else checked_tissue(atlas, tissue)
    row = atlas.rows([label], tissue=where)[0]
    term = term_id(label)
    best = np.argsort(-row, kind="stable")[:_GENES]
    tissues: dict[str, int] = {}
    for source in atlas.sources:
        for column in source.columns if source.is_table else ():
            if column.key == (term or label.strip().casefold()):
                tissues[column.tissue or "unknown"] = tissues.get(column.tissue or "unknown", 0) + 1
    own = term or label.strip().casefold()
    alike = likeness([own], atlas.keys)[0]
    order = [int(i) for i in np.argsort(-alike, kind="stable") if atlas.keys[i] != own]
    return {
        "label": (term_label(term) if term else None) or label,
        "term": term,
        "known": known.how,
        "through": list(known.through),
        "genes": {atlas.genes[i]: round(float(row[i]), 2) for i in best if row[i] > 0},
        "tissues": dict(sorted(tissues.items(), key=lambda item: (-item[1], item[0]))),
        "nearest": {
            term_label(atlas.keys[i]) or atlas.keys[i]: round(float(alike[i]), 2)
            for i in order[:_NEAREST]
            if alike[i] > 0
        },
    }


def list_types(atlas: Atlas, tissue: str | None = None) -> list[dict[str, Any]]:
    """List the types that have a table (in a tissue), with the sources and tissues of each.

    Raises
    ------
    InputError
        When no source is of the tissue; the message lists those there are.
    """
    where = None if tissue is None else system(checked_tissue(atlas, tissue))
    found: dict[str, dict[str, Any]] = {}
    for source in atlas.sources:
        for column in source.columns if source.is_table else ():
            if where is not None and system(column.tissue) != where:
                continue
            label = (term_label(column.term) if column.term else None) or column.label
            row = found.setdefault(
                column.key, {"label": label, "term": column.term, "sources": [], "tissues": []}
            )
            _append(row["sources"], source.name)
            _append(row["tissues"], column.tissue or "unknown")
    return sorted(found.values(), key=lambda row: str(row["label"]).casefold())


def list_sources(atlas: Atlas) -> list[dict[str, Any]]:
    """List the sources: kind, number of types and genes, and licence of each."""
    return [
        {
            "name": s.name,
            "kind": s.kind,
            "study": s.study,
            "types": len({c.key for c in s.columns}),
            "genes": len(s.genes),
            "licence": s.licence,
            "citation": s.citation,
        }
        for s in atlas.sources
    ]


def checked_tissue(atlas: Atlas, tissue: str) -> str:
    """Return the tissue if the atlas has a table of it.

    Raises
    ------
    InputError
        When it has none.
    """
    there = sorted({c.tissue for s in atlas.sources if s.is_table for c in s.columns if c.tissue})
    if system(tissue) not in {system(name) for name in there}:
        raise InputError(f"no source is of the tissue {brief(tissue)}; there are {_some(there)}")
    return tissue


def _some(names: Iterable[str]) -> str:
    return ", ".join(names)


def _append(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)
