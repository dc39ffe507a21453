"""From traces to tokens: what the model reads, what it is to write, and who is held out.

The prompt is made by the very method that asks a model at inference, and prompt and response are
tokenized apart, as they come about at inference. So both are equal token by token, whatever the
chat template. The loss covers the response and the token that ends it, nothing before, and not
the newline some templates write behind it, which no model is ever asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cello1.errors import InputError
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.traces import response_of

IGNORED = -100  # a label without loss


@dataclass(frozen=True)
class Example:
    """A trace in tokens.

    Attributes
    ----------
    prompt, response
        Token ids; the response with its end.
    """

    puzzle: Puzzle
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


def make_examples(traces: Sequence[Puzzle], prompter: Prompter) -> list[Example]:
    """Tokenize traces.

    Raises
    ------
    InputError
        When the tokenizer cannot spell the text.
    """
    ending = prompter.ending()
    examples: list[Example] = []
    for trace in traces:
        prompt, opened = prompter.prompt(trace)
        response = response_of(trace)
        if opened:  # the template has written the first tag already
            response = response.removeprefix("<think>")
        tokens = prompter.vocabulary.encode(response)
        if not examples:
            _check_spelling(prompter, trace, prompt, tokens, response)
        examples.append(Example(trace, prompt, tokens + ending))
    return examples


def _check_spelling(
    prompter: Prompter, trace: Puzzle, prompt: list[int], tokens: list[int], response: str
) -> None:
    """See that no text is lost; a tokenizer of the wrong class drops words without a sound."""
    asked = messages(trace)[-1].content.strip()
    spelled = prompter.vocabulary.text(tokens).strip()
    if spelled == response.strip() and asked in prompter.vocabulary.text(prompt):
        return
    raise InputError(
        f"the tokenizer of {prompter.source} does not give back the text it is given: "
        f"{spelled[:60]!r} for {response[:60]!r}; the class named in "
        "tokenizer_config.json or forced by the model type does not fit its files"
    )


def drop_long(examples: Sequence[Example], limit: int) -> tuple[list[Example], int]:
    """Return the examples of at most `limit` tokens, and how many were dropped; none is cut."""
    kept = [example for example in examples if len(example) <= limit]
    return kept, len(examples) - len(kept)


def donor_of(puzzle: Puzzle) -> str:
    """Return what must not be on both sides: the donor, or, where it is unknown, the context.

    Puzzles of one donor share their context, so rows without donors (the published ones) are
    held apart by it.
    """
    donor = puzzle.meta.get("donor_id")
    return f"context {puzzle.context}" if donor is None else f"donor {donor}"


def hold_out(
    puzzles: Sequence[Puzzle], share: float, seed: int
) -> tuple[list[Puzzle], list[Puzzle]]:
    """Split puzzles by donor into those to learn from and those held out.

    Raises
    ------
    InputError
        When there is one donor only.
    """
    if share == 0:
        return list(puzzles), []
    donors = sorted({donor_of(puzzle) for puzzle in puzzles})
    if len(donors) < 2:
        raise InputError(
            "all traces are of one donor, so none can be held out; name a file in sft.validation, "
            "or train without: sft.held_out=0"
        )
    random.Random(seed).shuffle(donors)
    out = set(donors[: min(max(1, round(share * len(donors))), len(donors) - 1)])
    learn = [puzzle for puzzle in puzzles if donor_of(puzzle) not in out]
    return learn, [puzzle for puzzle in puzzles if donor_of(puzzle) in out]
