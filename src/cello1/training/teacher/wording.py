"""How the offline teacher words its steps: a small grammar with a random generator of its own.

The lines are short, because small models learn from them: about 18 words for a plain cell and 25
for a hard one. Every gene is followed by a comma and a blank, as in the prompt, so that a gene
is always spelled in the same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

PLAIN_WORDS, HARD_WORDS = 18, 25
# Fixed phrases of drafts; each is one token of the small model.
AMONG_OTHERS, EACH_ONCE = "among others.", "Each type once:"
_CONTEXT_WORDS = 12

_SHOWS = ("shows", "lists", "has", "expresses", "carries")
_SO = ("hence", "so", "thus", "therefore", "which means")
_NOT = ("rather than", "and not", "over", "instead of")
_LIKELY = ("likely", "probably", "most likely")

_OPENING = (
    "{context}: {n} cells, surest first.",
    "{context}. {n} cells, {m} types; surest cells first.",
    "Context: {context}. I begin with the clearest of {n} cells.",
    "{context}; {n} cells to match, clearest ones first.",
)
_PLAIN = (
    "Cell {cell} {shows} {genes}{so} {label}.",
    "Cell {cell}: {genes}{so} {label}.",
    "Cell {cell} {shows} {genes}typical of {label}.",
)
_PLAIN_RIVAL = (
    "Cell {cell} {shows} {genes}{so} {label} {no} {rival}.",
    "Cell {cell}: {genes}{so} {label} {no} {rival}.",
)
_HARD = (
    "Cell {cell} {shows} {genes}{so} {likely} {label}, though {against}would suit {rival}.",
    "Cell {cell}: {against}{hint} at {rival}, but {genes}{weigh} more, {so} {label}.",
)
_HARD_ALONE = (
    "Cell {cell} {shows} {genes}{so} {likely} {label}, with {rival} close.",
    "Cell {cell}: {genes}{so} {likely} {label}, {rival} being less supported.",
)
_HARD_OTHER = (
    "Cell {cell} {shows} {genes}{so} {label}; {rival} fits Cell {other} better.",
    "Cell {cell}: {genes}{so} {likely} {label}, for {rival} fits Cell {other} better.",
)
_SILENT = (
    "Cell {cell} has no telling gene; {label} is the best type left.",
    "Cell {cell}: nothing decides, {label} fits least badly.",
)
_BETTER = (
    "Cell {cell} {shows} {genes}and fits {label} better than Cell {other}.",
    "Cell {cell}: {genes}a better {label} than Cell {other}.",
)
_NEEDS = (
    "Cell {cell} {shows} {genes}and needs {label} more than Cell {other}.",
    "Cell {cell}: {genes}{label} must go here, not to Cell {other}.",
)
_TAKE_SILENT = (
    "Cell {cell}: no gene decides, but {label} suits it better than Cell {other}.",
    "Cell {cell} has no telling gene; {label} is moved here from Cell {other}.",
)
_BACK = (
    "Back to Cell {cell}: not {gone} after all, {genes}{so} {label}.",
    "Back to Cell {cell}: {genes}{so} {label} instead.",
    "Back to Cell {cell}: I revise {gone}; {genes}{so} {label}.",
)
_BACK_LAST = (
    "Back to Cell {cell}: not {gone} after all; only {label} is left.",
    "Back to Cell {cell}: I revise {gone}, {label} remains by elimination.",
)
_LAST = (
    "Cell {cell}: only {label} is left, by elimination.",
    "Cell {cell} takes {label}, the last type left, by elimination.",
    "Cell {cell} is {label} by elimination.",
)

_PLACE = re.compile(
    r"(?:taken|originating) from (?:the |an? )?(.+?)(?= of (?:one|an?) [^.]*donor|[.,;]|$)"
)
_DISEASE = re.compile(r"diagnosed with (?:an? )?([^.]+)")


def listed(genes: Iterable[str]) -> str:
    """Write genes so that each one, the last as well, is followed by a comma and a blank."""
    return "".join(f"{gene}, " for gene in genes)


def clause(context: str) -> str:
    """Shorten a context to one clause: the origin of the cells, and the disease.

    Contexts in other layouts give their first sentence, cut to a dozen words.
    """
    found = [match[1] for pattern in (_PLACE, _DISEASE) if (match := pattern.search(context))]
    said = ", ".join(" ".join(part.split()[:_CONTEXT_WORDS]) for part in found)
    if not said:
        words = context.split(". ")[0].strip(" .").split()
        said = " ".join(words[:_CONTEXT_WORDS]) or "No context"
    return said[0].upper() + said[1:]


class Wording:
    """Puts the steps of a solution into words.

    Parameters
    ----------
    rng
        Random generator; the same state gives the same words.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def opening(self, context: str, cells: int, types: int) -> str:
        """Begin with what is known about the donor."""
        return self._pick(_OPENING).format(context=clause(context), n=cells, m=types)

    def plain(self, cell: int, label: str, genes: Sequence[str], rival: str | None) -> str:
        """Settle a cell without doubt; a rival is named if there is room for it."""
        if not genes:
            return self._say(_SILENT, cell=cell, label=label)
        short = self._say(_PLAIN, cell=cell, label=label, genes=listed(genes))
        if rival is None:
            return short
        long = self._say(_PLAIN_RIVAL, cell=cell, label=label, genes=listed(genes), rival=rival)
        return long if len(long.split()) <= PLAIN_WORDS else short

    def hard(
        self,
        cell: int,
        label: str,
        genes: Sequence[str],
        rival: str,
        against: Sequence[str],
        other: int | None,
    ) -> str:
        """Settle a cell against a strong rival.

        The reason against the rival is a cell that fits it better, if there is one, or else the
        genes that weigh less; lines that would be too long leave it out.
        """
        if not genes:
            return self._say(_SILENT, cell=cell, label=label)
        known = {"cell": cell, "label": label, "genes": listed(genes), "rival": rival}
        lines = []
        if against and (other is None or self._rng.random() < 0.5):
            hint = "hints" if len(against) == 1 else "hint"
            weigh = "weighs" if len(genes) == 1 else "weigh"
            lines.append(self._say(_HARD, **known, against=listed(against), hint=hint, weigh=weigh))
        if other is not None:
            lines.append(self._say(_HARD_OTHER, **known, other=other))
        lines.append(self._say(_HARD_ALONE, **known))
        lines.append(self._say(_PLAIN, **known))
        return next((line for line in lines if len(line.split()) <= HARD_WORDS), lines[-1])

    def take(self, cell: int, label: str, genes: Sequence[str], other: int, better: bool) -> str:
        """Give a cell the type that another one held."""
        pool = (_BETTER if better else _NEEDS) if genes else _TAKE_SILENT[not better :]
        return self._say(pool, cell=cell, label=label, genes=listed(genes), other=other)

    def back(self, cell: int, label: str, genes: Sequence[str], gone: str) -> str:
        """Revise an earlier choice; without genes, by elimination."""
        pool = _BACK if genes else _BACK_LAST
        return self._say(pool, cell=cell, label=label, genes=listed(genes), gone=gone)

    def last(self, cell: int, label: str) -> str:
        """Settle the last cell, for which one type is left."""
        return self._say(_LAST, cell=cell, label=label)

    def closing(self, labels: Sequence[str]) -> str:
        """Sum up in the order of the cells, which is the order of the answer."""
        return "In order: " + "; ".join(f"Cell {i} is {x}" for i, x in enumerate(labels, 1)) + "."

    def some(self, genes: Sequence[str], fewest: int, most: int) -> list[str]:
        """Return the strongest genes, a varying number of them."""
        return list(genes[: int(self._rng.integers(fewest, most + 1))])

    def chance(self, share: float) -> bool:
        """Return True in a fraction of the cases."""
        return bool(self._rng.random() < share)

    def _pick(self, pool: Sequence[str]) -> str:
        return pool[int(self._rng.integers(len(pool)))]

    def _say(self, pool: Sequence[str], **slots: object) -> str:
        words = {
            "shows": self._pick(_SHOWS),
            "so": self._pick(_SO),
            "no": self._pick(_NOT),
            "likely": self._pick(_LIKELY),
        }
        return self._pick(pool).format(**words, **slots)
