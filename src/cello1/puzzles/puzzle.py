"""The puzzle: N cells of one donor, each of a different type, and the types to choose from.

The problem is that of CellPuzzles (arXiv 2506.02911, section 3): a cell is its ranked list of
top genes, and a solver must give every cell one of the candidate types, no type twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cello1.errors import PuzzleError, brief

# A '|' separates the labels of an answer, a line break separates cells and candidates in the
# prompt, and the four tags frame a response: inside a label any of them would corrupt the text.
# Lone surrogates cannot be written as UTF-8.
FORBIDDEN = re.compile(
    r"[|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|</?(?:think|answer)>", re.IGNORECASE
)

_SOUND: set[str] = set()
_SOUND_AT_MOST = 1 << 17


def label_key(label: str) -> str:
    """Return the form in which labels are compared: case and outer blanks do not count."""
    return label.strip().casefold()


@dataclass(frozen=True)
class Puzzle:
    """One batch of cells to be matched with candidate types.

    Parameters
    ----------
    context
        What is known about the donor, as prose; kept byte for byte.
    cells
        For every cell its genes (symbols), highest expression first.
    candidates
        The M types on offer, M >= N. In CellPuzzles M = N; more are distractors.
    answer
        The true type of each cell, in cell order, or None if unknown.
    meta
        Metadata: dataset, donor_id, batch, tissue, disease, cell ids, how the genes were ranked,
        the row's own ``system_msg``, evidence that its prompt tells. JSON values only; nothing else
        of it is shown to a solver.

    Raises
    ------
    PuzzleError
        When fewer than two cells are given, a cell is empty, a label or symbol holds a '|', a
        line break or a response tag, candidates repeat (ignoring case), N > M, or the answer
        is not N different candidates.
    """

    context: str
    cells: tuple[tuple[str, ...], ...]
    candidates: tuple[str, ...]
    answer: tuple[str, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Lists are accepted, but everything is stored as tuples, which do not change.
        object.__setattr__(self, "cells", tuple(_strings(genes, "cell") for genes in self.cells))
        object.__setattr__(self, "candidates", _strings(self.candidates, "candidates"))
        if self.answer is not None:
            object.__setattr__(self, "answer", _strings(self.answer, "answer"))
        object.__setattr__(self, "meta", dict(self.meta))
        self._check_question()
        if self.answer is not None:
            self._check_answer(self.answer)

    def _check_question(self) -> None:
        if "\n\n" in self.context or FORBIDDEN.search(self.context.replace("|", "")):
            raise PuzzleError(
                f"context {brief(self.context)} holds a line break, a control character or a "
                "response tag; expected one paragraph of prose"
            )
        if len(self.cells) < 2:
            raise PuzzleError(f"a puzzle needs at least 2 cells, this one has {len(self.cells)}")
        for number, genes in enumerate(self.cells, start=1):
            if not genes:
                raise PuzzleError(f"cell {number} has no genes; drop cells without expression")
            if not _SOUND.issuperset(genes):
                for gene in genes:
                    _check_gene(gene, number)
                _remember(genes)
        for label in self.candidates:
            _check_name(label, "candidate")
        if len(self.candidate_index) < len(self.candidates):
            twice = _repeated(self.candidates)
            raise PuzzleError(f"candidate {brief(twice)} is listed more than once (case ignored)")
        if len(self.candidates) < len(self.cells):
            raise PuzzleError(
                f"{len(self.cells)} cells but only {len(self.candidates)} candidates: every cell "
                "needs a type of its own"
            )

    def _check_answer(self, answer: tuple[str, ...]) -> None:
        if len(answer) != len(self.cells):
            raise PuzzleError(f"the answer has {len(answer)} labels for {len(self.cells)} cells")
        keys = self.answer_keys or ()
        for label, key in zip(answer, keys, strict=True):
            if key not in self.candidate_index:
                raise PuzzleError(f"answer {brief(label)} is not among the candidates")
        if len(set(keys)) < len(answer):
            twice = _repeated(answer)
            raise PuzzleError(f"the answer gives {brief(twice)} to more than one cell")

    @cached_property
    def candidate_index(self) -> dict[str, int]:
        """Compared form of every candidate -> its position."""
        return {label_key(label): j for j, label in enumerate(self.candidates)}

    @cached_property
    def answer_keys(self) -> tuple[str, ...] | None:
        """Compared form of the answer."""
        return None if self.answer is None else tuple(label_key(label) for label in self.answer)

    @cached_property
    def id(self) -> str:
        """Hash of the question (context, cells, candidates), as 16 hex digits.

        The answer and the metadata stay outside, so that responses given before an answer was
        known still belong to their puzzle.
        """
        context = json.dumps(self.context, ensure_ascii=False)
        cells = ", ".join(map(_json_list, self.cells))
        content = f"[{context}, [{cells}], {_json_list(self.candidates)}]"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.id)

    def permute_cells(self, order: Sequence[int]) -> Puzzle:
        """Put the cells in another order; the answer moves with them and nothing else changes.

        Metadata of single cells (keys that start with ``cell_``) moves as well.
        """
        if sorted(order) != list(range(len(self.cells))):
            raise PuzzleError(f"{brief(list(order))} is not an order of {len(self.cells)} cells")

        def moved(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[i] for i in order)

        return replace(
            self,
            cells=moved(self.cells),
            answer=None if self.answer is None else moved(self.answer),
            meta={
                key: list(moved(value)) if key.startswith("cell_") else value
                for key, value in self.meta.items()
                if key != "assistant_msg"  # a whole response refers to the old order
            },
        )


def _strings(values: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(values, str):
        raise PuzzleError(f"{what} must be a list of strings, not the string {brief(values)}")
    items = tuple(values)
    for kind in set(map(type, items)):
        if not issubclass(kind, str):
            odd = next(item for item in items if type(item) is kind)
            raise PuzzleError(f"{what} holds {brief(odd)}; expected strings only")
    return items


def _json_list(names: Sequence[str]) -> str:
    """Write names as JSON; few have a character that JSON escapes."""
    inside = '", "'.join(names)
    if "\\" in inside or inside.count('"') > 2 * len(names) - 2:
        return json.dumps(names, ensure_ascii=False)
    return f'["{inside}"]'


def _remember(genes: Iterable[str]) -> None:
    """Remember symbols that are valid in a prompt, since they recur in every cell."""
    if len(_SOUND) > _SOUND_AT_MOST:
        _SOUND.clear()
    _SOUND.update(genes)


def _check_gene(gene: str, number: int) -> None:
    _check_name(gene, f"gene symbol of cell {number}")
    if "," in gene:
        raise PuzzleError(
            f"gene symbol {brief(gene)} of cell {number} holds a comma, which separates genes in "
            "the prompt; rename it"
        )


def _repeated(labels: Sequence[str]) -> str:
    keys = [label_key(label) for label in labels]
    return next(label for label, key in zip(labels, keys, strict=True) if keys.count(key) > 1)


def _check_name(name: str, what: str) -> None:
    if not name or name != name.strip():
        raise PuzzleError(f"{what} {brief(name)} is empty or has blanks around it; strip it")
    if found := FORBIDDEN.search(name):
        raise PuzzleError(
            f"{what} {brief(name)} holds {brief(found.group())}; '|', line breaks, control "
            "characters and response tags are not allowed in a name: rename it"
        )
