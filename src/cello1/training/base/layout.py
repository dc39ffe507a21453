"""Tokenize a draft: the prompt, the question for every cell, and the written response.

The tokens equal those of the prompt's text, assembled from cached pieces; only a label that is
spelled word by word differs from the text, in which it would be one token. The question is that of
the likelihood decoder: after the prompt and ``<think>``, for every cell separately, ``Cell i is``
and a label, whose tokens are chosen one by one among those that continue a candidate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from cello1.puzzles.prompt import (
    EVIDENCE_HEADING,
    KNOWN_HOW,
    system_message,
    user_message,
)
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.assign import assign_jointly
from cello1.solvers.evidence import named
from cello1.solvers.local.spelling import Tree, spelling_tree
from cello1.training.base.practice import Draft, Practice, supporting
from cello1.training.base.simulated import likeness, simulate
from cello1.training.base.sources import Floats32
from cello1.training.teacher.wording import AMONG_OTHERS, EACH_ONCE


@dataclass(frozen=True)
class Lesson:
    """A puzzle in tokens.

    Attributes
    ----------
    prompt
        As the chat template renders it, ``<think>`` included.
    labels
        Tokens of each candidate after ``is``, with the blank.
    bare
        Tokens of each candidate at the beginning of a line.
    gold
        Position of the candidate of each cell.
    cited
        For each cell and candidate, tokens of the genes that support it.
    listed
        For each cell, tokens of its genes that can be cited.
    tree
        Prefix tree of the labels.
    cells
        Start and end of the genes of each cell in the prompt.
    """

    prompt: list[int]
    labels: list[tuple[int, ...]]
    bare: list[tuple[int, ...]]
    gold: list[int]
    cited: list[list[list[int]]]
    listed: list[set[int]]
    tree: Tree
    cells: list[tuple[int, int]]


class Layout:
    """Assembles lessons.

    Parameters
    ----------
    tokenizer
        Tokenizer of the model.
    practice
        Source of genes and types.
    telling
        Log ratios of genes for types, from :func:`practice.knowledge`.
    """

    def __init__(self, tokenizer: Any, practice: Practice, telling: Floats32) -> None:
        self.tokenizer, self.practice, self.telling = tokenizer, practice, telling
        # Frequencies of rare genes are unreliable, so fewer of them are cited.
        self.genes = [self.encode(f"{gene}, ") for gene in practice.genes]
        self.single = np.array([ids[0] if len(ids) == 1 else -1 for ids in self.genes])
        self.gene_of = {t: practice.genes[g] for g, t in enumerate(self.single.tolist()) if t >= 0}
        self.alike = likeness(telling)
        self.last: dict[int, list[int]] = {}
        self.types = set(practice.sources.types)
        self.plain = _without(tokenizer, self.types)
        self.think = self.encode("<think>")
        self.newline = self.encode("\n")
        self.end = self.encode(".")
        self.tail = self.encode("<|im_end|>\n<|im_start|>assistant\n<think>")
        self.question = self.encode(
            user_message(Puzzle("x", (("A",), ("B",)), ("a", "b")))
            .partition("Cell 2: B")[2]
            .removesuffix("a\nb")
        )
        self._labels: dict[tuple[str, bool, int], tuple[int, ...]] = {}

    def knows_types(self) -> bool:
        """Return whether every label is one token."""
        return all(len(self.spell(label, "", True, 0)) == 1 for label in self.types)

    def encode(self, text: str) -> list[int]:
        """Tokenize a piece of text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @lru_cache(maxsize=256)  # noqa: B019
    def said(self, text: str) -> list[int]:
        """Tokenize a recurring text, with a cache."""
        return self.encode(text)

    @lru_cache(maxsize=4096)  # noqa: B019 - one layout lives as long as the training
    def head(self, context: str, n: int, m: int) -> list[int]:
        """Return the tokens before the first cell."""
        cells = tuple(("A",) for _ in range(n))
        system = system_message(Puzzle("x", cells, tuple(f"type {j}" for j in range(m))))
        return self.encode(
            f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nContext: {context}\n\n"
        )

    @lru_cache(maxsize=64)  # noqa: B019
    def cell(self, i: int, what: str) -> list[int]:
        """Return the tokens of ``Cell i`` followed by a text."""
        return self.encode(f"Cell {i}{what}")

    def spell(self, name: str, lead: str, whole: bool, variant: int) -> tuple[int, ...]:
        """Return the tokens of a name after `lead`: as one token if it is one, or word by word."""
        if whole or name not in self.types:
            variant = 0
        key = (lead + name, whole, variant)
        if key not in self._labels:
            if whole or name not in self.types:
                ids = self.encode(lead + name)
            elif variant and (inner := _inner(name, self.types)):
                before, label, after = inner
                ids = [*self._words(lead + before), *self.encode(label), *self._words(after)]
            else:
                ids = self._words(lead + name)
            self._labels[key] = tuple(ids)
        return self._labels[key]

    def _words(self, text: str) -> list[int]:
        return list(self.plain.encode(text).ids) if text else []

    def lesson(
        self, draft: Draft, rng: np.random.Generator, cite: bool, evidence: bool = False
    ) -> Lesson:
        """Tokenize a draft.

        Parameters
        ----------
        draft
            The puzzle.
        rng
            The random generator of spellings and evidence.
        cite
            Whether to choose the genes that a response cites.
        evidence
            Whether the prompt includes the simulated evidence of an atlas.
        """
        n, m = len(draft.cells), len(draft.names)
        ids = list(self.head(draft.context, n, m))
        cells = []
        for i, cell in enumerate(draft.cells, 1):
            ids += self.cell(i, ": ")
            start, listed = len(ids), cell.tolist()
            for gene in listed[:-1]:
                ids += self.genes[gene]
            ids += self._last(listed[-1])
            cells.append((start, len(ids)))
            if i < n:
                ids += self.newline
        ids += self.question
        variants = (rng.random(m) < 0.5).astype(int).tolist()
        forms = list(zip(draft.names, draft.whole, variants, strict=True))
        bare = [self.spell(name, "", whole, v) for name, whole, v in forms]
        labels = [self.spell(name, " ", whole, v) for name, whole, v in forms]
        for j, label in enumerate(bare):
            ids += (self.newline if j else []) + list(label)
        cited = self._cite(draft) if cite or evidence else []
        if evidence:
            ids += self._evidence(draft, bare, labels, cited, rng)
        ids += self.tail
        tree = spelling_tree(labels, self.end[0])
        listed = [{int(t) for t in self.single[cell] if t >= 0} for cell in draft.cells]
        return Lesson(ids, labels, bare, draft.gold.tolist(), cited, listed, tree, cells)

    def _evidence(
        self,
        draft: Draft,
        bare: Sequence[tuple[int, ...]],
        labels: Sequence[tuple[int, ...]],
        cited: list[list[list[int]]],
        rng: np.random.Generator,
    ) -> list[int]:
        """Return the tokens of the section with the simulated evidence of an atlas."""
        made = simulate(draft, self.alike, rng)

        def label(place: int, j: int) -> Sequence[int]:
            return [*self.said(" |"), *labels[j]] if place else bare[j]

        ids = list(self.said(f"\n\n{EVIDENCE_HEADING}"))
        for i, cell in enumerate(made.cells):
            ids += [*self.newline, *self.cell(i + 1, ": ")]
            for place, (j, percent) in enumerate(cell):
                ids += label(place, j)
                ids += self.said(f" {percent} %")
                if genes := [self.gene_of[t] for t in cited[i][j]]:
                    ids += self.encode(f" ({', '.join(genes)})")
        for how, said in KNOWN_HOW.items():
            for place, j in enumerate(made.known.get(how, [])):
                ids += (
                    [*self.said(" |"), *labels[j]]
                    if place
                    else [
                        *self.newline,
                        *self.said(said),
                        *bare[j],
                    ]
                )
        return ids

    def _last(self, gene: int) -> list[int]:
        if gene not in self.last:
            self.last[gene] = self.encode(self.practice.genes[gene])
        return self.last[gene]

    def _cite(self, draft: Draft) -> list[list[list[int]]]:
        """Choose genes of each cell that support each candidate more than the others."""
        return [
            [
                [int(self.single[gene]) for gene in genes]
                for genes in supporting(cell[self.single[cell] >= 0], draft.types, self.telling)
            ]
            for cell in draft.cells
        ]


def _without(tokenizer: Any, types: set[str]) -> Any:
    """Return the tokenizer without the tokens of whole labels."""
    import json

    from tokenizers import Tokenizer

    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["added_tokens"] = [t for t in core["added_tokens"] if t["content"] not in types]
    return Tokenizer.from_str(json.dumps(core))


def _inner(name: str, types: set[str]) -> tuple[str, str, str] | None:
    """Return the longest known label inside a longer one, with the text before and after it."""
    words = [(m.start(), m.end()) for m in re.finditer(r"\S+", name)]
    best = None
    for a, (start, _) in enumerate(words):
        for _, end in words[a:]:
            part = name[start:end]
            longer = best is None or end - start > len(best[1])
            if part != name and part in types and longer:
                best = (name[:start], part, name[end:])
    return best


@dataclass(frozen=True)
class Questions:
    """The questions of some lessons, for all cells after each prompt, padded on the right.

    Attributes
    ----------
    ids, block, position
        Shape (rows, length): tokens; 0 for the prompt, i for cell i; position for the model, where
        every question follows the prompt directly.
    about
        The cell that a token belongs to, as a gene of its list or part of its question; 0 if none.
    row, at
        Row and position of the state that makes each choice.
    options
        Tokens to choose among, shape (choices, most), padded with -1.
    target
        Index of the right option.
    owner
        Row and cell of each choice, as row * 64 + cell.
    """

    ids: npt.NDArray[np.int32]
    block: npt.NDArray[np.int16]
    position: npt.NDArray[np.int16]
    about: npt.NDArray[np.int16]
    row: npt.NDArray[np.int32]
    at: npt.NDArray[np.int32]
    options: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    owner: npt.NDArray[np.int32]


def questions(layout: Layout, lessons: Sequence[Lesson], pad: int) -> Questions:
    """Make the questions for every cell of every lesson, along the right label."""
    rows, choices = [], []
    for r, lesson in enumerate(lessons):
        ids = list(lesson.prompt)
        block, position = [0] * len(ids), list(range(len(ids)))
        about = [0] * len(ids)
        for i, (start, end) in enumerate(lesson.cells, 1):
            about[start:end] = [i] * (end - start)
        for i, gold in enumerate(lesson.gold, 1):
            header = layout.cell(i, " is")
            path = lesson.tree.path(gold)
            deepest = max((depth for depth, _, _ in path), default=0)
            own = [*header, *lesson.labels[gold][:deepest]]
            for depth, options, target in path:
                choices.append((r, len(ids) + len(header) + depth - 1, options, target, i - 1))
            ids += own
            block += [i] * len(own)
            about += [0, *[i] * (len(own) - 1)]
            position += range(len(lesson.prompt), len(lesson.prompt) + len(own))
        rows.append((ids, block, position, about))
    width = max(len(row[0]) for row in rows)
    most = max(len(options) for _, _, options, _, _ in choices)

    def padded(lists: Sequence[Sequence[int]], fill: int, size: int, kind: Any) -> Any:
        out = np.full((len(lists), size), fill, kind)
        for line, values in zip(out, lists, strict=True):
            line[: len(values)] = values
        return out

    return Questions(
        padded([row[0] for row in rows], pad, width, np.int32),
        padded([row[1] for row in rows], 0, width, np.int16),
        padded([row[2] for row in rows], 0, width, np.int16),
        padded([row[3] for row in rows], 0, width, np.int16),
        np.array([c[0] for c in choices], np.int32),
        np.array([c[1] for c in choices], np.int32),
        padded([c[2] for c in choices], -1, most, np.int32),
        np.array([c[3] for c in choices], np.int32),
        np.array([c[0] * 64 + c[4] for c in choices], np.int32),
    )


# Loss weights of the tokens of a written response.
TYPE, NEXT, GENE, WORD, PERCENT = 1.0, 0.8, 0.5, 0.1, 0.3
PART = 2.0  # of what parts and ends the answer: one mistake makes it invalid


class Text(NamedTuple):
    """A written response, token by token.

    Attributes
    ----------
    tokens
        Tokens after the prompt.
    targets, weights
        The target of each token, and its loss weight.
    allowed
        Tokens that are valid in place of this one, where a type or a gene is named: types on offer
        that the same line has not named, or no earlier one has given; genes of the cell that are
        not cited yet.
    about
        Number of the cell whose type this token names, or the token before a name; else 0.
    """

    tokens: list[int]
    targets: list[int]
    weights: list[float]
    allowed: list[tuple[int, ...]]
    about: list[int]


def response(
    layout: Layout,
    lesson: Lesson,
    rating: npt.NDArray[np.float64],
    given: Sequence[int] | None = None,
    *,
    own: bool = True,
) -> Text:
    """Write the response from ``<think>`` on: what each cell may be, the decision, the answer.

    First every cell is rated by itself, as evidence is written: the likely types in percent. Then
    each type is given once, a line for each cell, with genes that support it; so the decision can
    be read from the ratings above it.

    Parameters
    ----------
    layout, lesson
        The layout, and the puzzle.
    rating
        Log-probabilities of candidates, cell by cell, shape (N, M).
    given
        The candidate that the line of each cell states; by default the best joint assignment. The
        target is the best assignment of the ratings that agrees with all lines before.
    own
        Whether these are the model's own ratings, which it learns to state; else they are as
        unclear as those of strangers may be, and it only learns to decide by them.
    """
    text = Text([], [], [], [], [])
    wanted = decisions(rating, given)
    given = wanted if given is None else given
    colon, among = layout.said(": "), layout.said(AMONG_OTHERS)

    def say(ids: Sequence[int], weight: float) -> None:
        text.tokens.extend(ids)
        text.targets.extend(ids)
        text.weights.extend([weight] * len(ids))
        text.allowed.extend([()] * len(ids))
        text.about.extend([0] * len(ids))

    def name(i: int, j: int, forms: Sequence[Sequence[int]], used: Sequence[int]) -> None:
        place = len(text.tokens)
        say(forms[j], TYPE)
        _allow(forms, used, place, text)
        text.about[place - 1 :] = [i + 1] * (len(text.tokens) - place + 1)

    def begin(ids: Sequence[int]) -> None:
        say(ids[:1], NEXT)
        say(ids[1:], WORD)

    say(layout.think, TYPE)
    for i, shares in enumerate(softmax(rating, axis=1).tolist()):
        likely = named(shares)
        say(layout.cell(i + 1, ": "), NEXT)
        for place, (j, percent) in enumerate(likely):
            if place:
                say(layout.said(" |"), PERCENT)
            name(i, j, lesson.labels if place else lesson.bare, [k for k, _ in likely[:place]])
            say(layout.said(f" {percent} %"), PERCENT)
        say(layout.newline, PERCENT)
    if not own:
        text.weights[1:] = [0.0] * (len(text.weights) - 1)
    begin(layout.said(f"{EACH_ONCE}\n"))
    for i, chosen in enumerate(given):
        begin(layout.cell(i + 1, " is"))
        place = len(text.tokens)
        name(i, chosen, lesson.labels, given[:i])
        _mend(lesson.labels[wanted[i]], place, text)
        if genes := lesson.cited[i][chosen]:
            say(colon, WORD)
            say(genes, GENE)
            for k in range(len(genes)):
                text.allowed[k - len(genes)] = tuple(lesson.listed[i] - set(genes[:k]))
            say(among, WORD)
        else:
            say(layout.end, WORD)
        say(layout.newline, WORD)
    begin(layout.said("</think>\n<answer>"))
    for i in range(len(given)):
        if i:
            say(layout.said(" |"), PART)
        name(i, given[i], lesson.labels if i else lesson.bare, given[:i])
    say(layout.said("</answer><|im_end|>"), PART)
    return text


def decisions(rating: npt.NDArray[np.float64], given: Sequence[int] | None = None) -> list[int]:
    """Return for each cell its candidate in the best assignment that agrees with all lines before.

    Parameters
    ----------
    rating
        Log-probabilities of candidates, shape (N, M).
    given
        What the lines state; by default what is best.
    """
    best: list[int] = assign_jointly(rating).tolist()
    if given is None:
        return best
    wanted, left = [], list(range(rating.shape[1]))
    for i, stated in enumerate(given):
        wanted.append(best[i])
        left.remove(stated)
        if stated != best[i] and i + 1 < len(best):
            best[i + 1 :] = [left[k] for k in assign_jointly(rating[i + 1 :, left]).tolist()]
    return wanted


def _mend(right: Sequence[int], place: int, text: Text) -> None:
    """Set the target at the first wrong token of a label to the right one."""
    for k, token in enumerate(text.targets[place:]):
        if k >= len(right) or right[k] != token:
            if k < len(right):
                text.targets[place + k] = right[k]
            else:
                text.weights[place + k] = 0.0
            return


def _allow(forms: Sequence[Sequence[int]], used: Sequence[int], place: int, text: Text) -> None:
    """List the tokens by which the label at `place` becomes one on offer that is not used."""
    spelled = text.tokens[place:]
    for k, target in enumerate(text.targets[place:]):
        here = [form for j, form in enumerate(forms) if j not in used and len(form) > k]
        going_on = {form[k] for form in here if list(form[:k]) == spelled[:k]}
        text.allowed[place + k] = tuple(sorted(going_on | {target}))
