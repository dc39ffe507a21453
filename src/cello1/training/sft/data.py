"""The data of a fine-tuning: traces read and tokenized, donors held out, long ones dropped.

The prompt is made by the method that is used at inference, and prompt and response are tokenized
separately, as at inference. So the tokens are the same whatever the chat template. The loss covers
the response and the token that ends it; neither what comes before nor the newline that some
templates write after it, which no model is ever asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import Message, has_evidence, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes import SftSettings
from cello1.solvers.local.prompter import Prompter
from cello1.training.knowledge.knowledge import knowledge_file, left_out, read_questions
from cello1.training.knowledge.questions import Question
from cello1.training.run.data import (
    donors_in,
    draw_some,
    hold_out,
    input_files,
    read_answered,
    refuse_shared,
)
from cello1.training.run.traces import answers_only, read_traces, response_of

IGNORED = -100  # a label without loss
MOST_QUESTIONS = 512  # held out


@dataclass(frozen=True)
class Example:
    """A tokenized trace, or a question with its answer.

    Attributes
    ----------
    puzzle
        What it is made of.
    prompt, response
        Token ids; the response includes its end token.
    """

    puzzle: Puzzle | Question
    prompt: list[int]
    response: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    def row(self) -> dict[str, list[int]]:
        """Return the row TRL trains on."""
        return {
            "input_ids": self.prompt + self.response,
            "labels": [IGNORED] * len(self.prompt) + self.response,
        }


def make_examples(taught: Sequence[Puzzle | Question], prompter: Prompter) -> list[Example]:
    """Tokenize traces, or questions and answers.

    Raises
    ------
    InputError
        When the tokenizer cannot spell the text.
    """
    ending = prompter.ending()
    examples: list[Example] = []
    for each in taught:
        if isinstance(each, Question):
            turns, response, thinks = each.turns, each.response, False
        else:
            turns, response, thinks = tuple(messages(each)), response_of(each), True
        prompt, opened = prompter.asked(turns)
        if opened:  # the template has written the first tag already
            response = response.removeprefix("<think>") if thinks else f"</think>\n{response}"
        tokens = prompter.vocabulary.encode(response)
        if not examples:
            _check_spelling(prompter, turns, prompt, tokens, response)
        examples.append(Example(each, prompt, tokens + ending))
    return examples


def _check_spelling(
    prompter: Prompter,
    turns: Sequence[Message],
    prompt: list[int],
    tokens: list[int],
    response: str,
) -> None:
    """Check that no text is lost: a tokenizer of the wrong class silently drops words."""
    asked = turns[-1].content.strip()
    spelled = prompter.vocabulary.text(tokens).strip()
    if spelled == response.strip() and asked in prompter.vocabulary.text(prompt):
        return
    raise InputError(
        f"the tokenizer of {prompter.source} does not reproduce the text it is given: "
        f"{spelled[:60]!r} for {response[:60]!r}; the class named in "
        "tokenizer_config.json or forced by the model type does not fit its files"
    )


def drop_long(examples: Sequence[Example], limit: int) -> tuple[list[Example], int]:
    """Return the examples of at most `limit` tokens, and how many were dropped; none is cut."""
    kept = [example for example in examples if len(example) <= limit]
    return kept, len(examples) - len(kept)


@dataclass(frozen=True)
class SftData:
    """What is trained on and what is held out.

    Attributes
    ----------
    learn, held_out
        Tokenized traces; the loss is measured on those held out.
    solve
        Held-out puzzles that are solved at every evaluation.
    counts
        Numbers of traces used and dropped, for the log and the model card.
    """

    learn: list[Example]
    held_out: list[Example]
    solve: list[Puzzle]
    counts: dict[str, Any]


def sft_files(settings: SftSettings) -> list[Path]:
    """Return the files whose content a fine-tuning depends on.

    Raises
    ------
    InputError
        When one is missing.
    """
    files = input_files(settings.traces, settings.validation, "traces")
    return [*files, *map(knowledge_file, settings.knowledge)]


def read_sft_data(settings: SftSettings, prompter: Prompter, context: int) -> SftData:
    """Read and tokenize everything a fine-tuning needs.

    Parameters
    ----------
    settings
        Which files, and how they are split.
    prompter
        The tokenizer and chat template of the model.
    context
        Context length of the model, in tokens.

    Raises
    ------
    InputError
        When nothing is left to train on, or a donor would be on both sides.
    """
    if not settings.traces and not settings.knowledge:
        raise UseError(
            "no traces are named; add traces=FILE (or knowledge=FILE), or sft.traces to the recipe"
        )
    traces = [t for path in settings.traces for t in _read(path, settings.answers_only)]
    questions = [q for path in settings.knowledge for q in read_questions(path)]
    if settings.traces and not traces:
        raise InputError(f"there is no trace in {', '.join(settings.traces)}; nothing to train on")
    if settings.validation:
        learn, (shown, asked) = traces, _read_validation(settings)
        refuse_shared(learn, [*shown, *asked], settings.validation)
    elif traces:
        learn, shown = hold_out(traces, settings.held_out, settings.seed, "traces")
        asked = shown
    else:
        learn, shown, asked = [], [], []
    known, withheld = _hold_out_questions(questions, settings)
    limit = min(settings.max_length, context)
    kept, dropped = drop_long(make_examples([*learn, *known], prompter), limit)
    shown_kept, shown_dropped = drop_long(make_examples([*shown, *withheld], prompter), limit)
    if not kept:
        raise InputError(
            f"all {len(learn) + len(known)} traces are longer than {limit} tokens; raise "
            "sft.max_length, or list fewer genes per cell"
        )
    solve = draw_some(asked, settings.solve, settings.seed)
    counts = {
        "traces": len(traces),
        "questions": len(questions),
        "questions_held_out": len(withheld),
        "questions_without": sorted({n for f in settings.knowledge for n in left_out(f) or ()}),
        "learned": len(kept),
        "dropped_too_long": dropped,
        "limit": limit,
        "held_out": len(shown_kept),
        "held_out_dropped_too_long": shown_dropped,
        "held_out_solved": len(solve),
        "hinted": sum(bool(t.meta.get("hint")) for t in traces),
        "with_evidence": sum(map(has_evidence, traces)),
        "tokens": sum(map(len, kept)),
        "response_tokens": sum(len(example.response) for example in kept),
        "longest": max(map(len, kept)),
        "donors": donors_in(learn),
        "held_out_donors": donors_in([*shown, *asked]),
    }
    return SftData(kept, shown_kept, solve, counts)


def _hold_out_questions(
    questions: Sequence[Question], settings: SftSettings
) -> tuple[list[Question], list[Question]]:
    """Hold out a share of the questions, a few hundred at most: the loss is measured on them."""
    number = min(int(settings.held_out * len(questions)), MOST_QUESTIONS)
    order = random.Random(settings.seed).sample(range(len(questions)), number)
    out = set(order)
    learn = [q for i, q in enumerate(questions) if i not in out]
    return learn, [questions[i] for i in sorted(out)]


def _read(path: str, only_answers: bool) -> list[Puzzle]:
    return answers_only(read_puzzles(path, "train")) if only_answers else read_traces(path)


def _read_validation(settings: SftSettings) -> tuple[list[Puzzle], list[Puzzle]]:
    """Return the traces to take the loss on, and the puzzles to solve."""
    asked = read_answered(str(settings.validation), "validation")
    if settings.answers_only:
        return answers_only(asked), asked
    return [puzzle for puzzle in asked if "assistant_msg" in puzzle.meta], asked
