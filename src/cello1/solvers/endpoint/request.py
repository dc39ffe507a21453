"""What a server is asked: one chat per puzzle, in the form that the server is known to take."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import openai

from cello1.puzzles.prompt import Message, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.endpoint.reply import server_message

_CHARACTERS_PER_TOKEN = 4
_SEED_STRIDE = 1_000_003
_NOT_TAKEN = re.compile("support|recogni|unknown|unexpected|extra|permitted|allowed|deprecated")


@dataclass(frozen=True)
class Prompt:
    """Something to ask that is no puzzle, such as a judge's question about two responses.

    Attributes
    ----------
    id
        Under which the answer comes back.
    turns
        The chat.
    """

    id: str
    turns: tuple[Message, ...]


Asked = Puzzle | Prompt


def chat(asked: Asked) -> list[dict[str, str]]:
    """Return the messages of a puzzle or a prompt as the API wants them."""
    turns = asked.turns if isinstance(asked, Prompt) else messages(asked)
    return [message._asdict() for message in turns]


def prompt_tokens(puzzle: Asked) -> int:
    """Estimate the length of a prompt: characters / 4; gene symbols can take twice that."""
    return sum(len(turn["content"]) for turn in chat(puzzle)) // _CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class RequestForm:
    """How to ask a model; what the server would not take is learned on the way.

    Attributes
    ----------
    model, max_new_tokens, temperature, seed, sample
        As in :class:`cello1.solvers.endpoint.solver.EndpointSolver`.
    refused
        Any of ``system``, ``max_tokens``, ``temperature``, ``seed``.
    """

    model: str
    max_new_tokens: int
    temperature: float
    seed: int
    sample: int
    refused: set[str] = field(default_factory=set)

    def request(self, puzzle: Asked) -> dict[str, Any]:
        """Write the request for a puzzle."""
        turns = chat(puzzle)
        if "system" in self.refused:
            turns = [{"role": "user", "content": "\n\n".join(turn["content"] for turn in turns)}]
        length = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        optional = {
            "temperature": self.temperature,
            "seed": self.seed + _SEED_STRIDE * self.sample,
        }
        return {
            "model": self.model,
            "messages": turns,
            length: self.max_new_tokens,
            **{name: value for name, value in optional.items() if name not in self.refused},
        }

    def learn(self, error: Exception, request: dict[str, Any]) -> bool:
        """Learn from a refusal; True when the same request can now be put otherwise."""
        name = _objection(error) if isinstance(error, openai.APIStatusError) else None
        sent = {*request, *(turn["role"] for turn in request["messages"])}
        if name is None or name not in sent:
            return False
        self.refused.add(name)
        return True


def _objection(error: openai.APIStatusError) -> str | None:
    """Return the part of a request that a server will not take, if it is one of ours."""
    if error.status_code not in (400, 422):
        return None
    said = server_message(error.body).lower()
    if ("system" in said and "role" in said) or "developer instruction" in said:
        return "system"
    # That a prompt is too long is often explained with the word max_tokens, too.
    if _NOT_TAKEN.search(said) and "context length" not in said:
        for name in ("max_tokens", "temperature", "seed"):
            if error.param == name or re.search(rf"\b{name}\b", said):
                return name
    return None
