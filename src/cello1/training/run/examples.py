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
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from cello1.errors import InputError
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.vocabulary import Vocabulary
from cello1.training.run.traces import response_of

IGNORED = -100  # a label without loss
_MARK = "cello1-reply"


class Student(LanguageModel):
    """A model while it learns, as the solvers see it; without weights it still writes prompts.

    Parameters
    ----------
    folder
        Of the base model.
    model
        The weights, if they are at hand; they stay where they are and are never copied.

    Raises
    ------
    InputError
        When the folder has no tokenizer, or the tokenizer no chat template.
    """

    def __init__(self, folder: Path, model: Any = None) -> None:
        self.source = str(folder)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(self.source, padding_side="left")
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().split("\n")[0]
            raise InputError(f"no tokenizer can be loaded from {folder} ({first})") from error
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError(
                f"the tokenizer of {folder} has no chat template; use an instruct model, or set "
                "tokenizer.chat_template and save it"
            )
        self.vocabulary = Vocabulary(self.tokenizer)
        if model is not None:
            self.take(model)

    def take(self, model: Any) -> None:
        """Answer with these weights from now on."""
        self.model = model
        self.device = str(model.device)
        config = model.config.get_text_config(decoder=True)
        self.context = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
        self.ends = self._end_ids()

    def ending(self) -> list[int]:
        """Return the tokens that close a response: what the template writes, up to its end token.

        Templates differ in what follows (Qwen: a newline); generation stops before that.
        """
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _MARK}]
        text = str(self.tokenizer.apply_chat_template(chat, tokenize=False))
        tail = self.vocabulary.encode(text.rpartition(_MARK)[2])
        special = set(self.tokenizer.all_special_ids)
        for place, token in enumerate(tail):
            if token in special:
                return tail[: place + 1]
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                f"the tokenizer of {self.source} has no end token, so the model could not learn "
                "to stop; set tokenizer.eos_token and save it"
            )
        return [self.tokenizer.eos_token_id]


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


def make_examples(traces: Sequence[Puzzle], student: Student) -> list[Example]:
    """Tokenize traces.

    Raises
    ------
    InputError
        When the tokenizer cannot spell the text.
    """
    ending = student.ending()
    examples: list[Example] = []
    for trace in traces:
        prompt, opened = student.prompt(trace)
        response = response_of(trace)
        if opened:  # the template has written the first tag already
            response = response.removeprefix("<think>")
        tokens = student.vocabulary.encode(response)
        if not examples:
            _check_spelling(student, trace, prompt, tokens, response)
        examples.append(Example(trace, prompt, tokens + ending))
    return examples


def _check_spelling(
    student: Student, trace: Puzzle, prompt: list[int], tokens: list[int], response: str
) -> None:
    """See that no text is lost; a tokenizer of the wrong class drops words without a sound."""
    asked = messages(trace)[-1].content.strip()
    spelled = student.vocabulary.text(tokens).strip()
    if spelled == response.strip() and asked in student.vocabulary.text(prompt):
        return
    raise InputError(
        f"the tokenizer of {student.source} does not give back the text it is given: "
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
