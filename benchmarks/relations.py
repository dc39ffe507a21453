"""How a label relates to the true one, by the Cell Ontology."""

from __future__ import annotations

from cello1.scoring.ontology import ancestors, lineage, steps_up, term_id


def relation(label: str, truth: str, *, within: int = 2) -> str:
    """Say how a label relates to the true one; never a score by itself.

    Parameters
    ----------
    label, truth
        Labels, synonyms or ids.
    within
        Steps at most between an ancestor and its descendant.

    Returns
    -------
    str
        ``exact``; ``ancestor`` (the label is a wider type) or ``descendant``, within so many
        steps; ``same lineage``; ``other``; ``not in the ontology`` when either is not known.
    """
    if label.strip().casefold() == truth.strip().casefold():
        return "exact"
    a, b = term_id(label), term_id(truth)
    if a is None or b is None:
        return "not in the ontology"
    if a == b:
        return "exact"
    for kind, upper, lower in (("ancestor", a, b), ("descendant", b, a)):
        if upper in ancestors(lower) and steps_up(lower)[upper] <= within:
            return kind
    shared = lineage(a)
    return "same lineage" if shared is not None and shared == lineage(b) else "other"
