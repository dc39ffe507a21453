"""Requests to a server: one chat per puzzle, in the form that the server accepts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cello1.puzzles.prompt import CHARACTERS_PER_TOKEN, Message, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.endpoint.reply import Complaint

_SEED_STRIDE = 1_000_003
_NEARLY_ZERO = 0.01
_FEWEST = 16
_LENGTHS = ("max_tokens", "max_completion_tokens")
_NOT_ABOUT_THE_FORM = (401, 402, 403, 404, 408, 409, 425, 429)
_NOT_TAKEN_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_NOT_TAKEN = re.compile(
    "support|recogni|unknown|unexpected|extra|permitted|allowed|deprecated|invalid|must be"
    "|positive|only the default|cannot be|not accept|not available|unrecogni|instead"
)
_TOO_LARGE = re.compile(
    r"too (?:large|high|big|long|many)|exceed|at most|less than|maximum|larger|greater than"
    r"|valid range|<=|\blimit|above|more than|up to"
)
_INSTEAD = re.compile(r"max_completion_tokens\W{0,3} instead|in favou?r of|use \W?max_completion")
_ASKED_FOR = re.compile(
    "max_new_tokens|in the completion|completion tokens|output tokens|new tokens|for the completion"
)
_POSITIVE = re.compile(r"positive|greater than|> ?0|\(0|non-?zero|above 0|must not be 0")
_PROMPT_TOKENS = re.compile(
    r"(\d+) (?:tokens )?(?:in|from|of|for) (?:the |your |all )?(?:input |prompt)?"
    r"(?:messages|prompt|input)|(\d+) \W?(?:inputs?|prompt|text input)\W? tokens"
)
_NUMBER = re.compile(r"(?<![\w.])\d{2,9}(?![\w.]*\w)")
_ROLES = re.compile(
    r"system[^.]{0,40}\brole|\broles?\b[^.]{0,60}system|developer instruction"
    r"|roles must alternate|\brole[^.]{0,60}alternat|only \W?user\W? and \W?(?:assistant|model)"
    r"|(?:invalid|unknown|unexpected|unsupported)[^.]{0,20}\brole"
    r"|system (?:message|prompt|instruct)[^.]{0,40}(?:not|unsupp|disallow|isn't|n't)"
    r"|\broles?\b[^.]{0,60}(?:one of|not supported)"
    r"|(?:should|must) (?:start|begin)[^.]{0,30}user"
)


@dataclass(frozen=True)
class Prompt:
    """A request that is not a puzzle, such as a question to a judge about two responses.

    Attributes
    ----------
    id
        Key of the answer.
    turns
        The chat.
    """

    id: str
    turns: tuple[Message, ...]


Asked = Puzzle | Prompt


def chat(asked: Asked) -> list[dict[str, str]]:
    """Return the messages of a puzzle or a prompt in the format of the API."""
    turns = asked.turns if isinstance(asked, Prompt) else messages(asked)
    return [message._asdict() for message in turns]


def prompt_tokens(puzzle: Asked) -> int:
    """Estimate the length of a prompt: characters / 4; gene symbols can take twice that."""
    return _characters(chat(puzzle)) // CHARACTERS_PER_TOKEN


@dataclass
class Learned:
    """Parameters a server does not accept: found out once, and shared by all requests.

    Attributes
    ----------
    refused
        Any of ``system`` (sent within the user message instead), ``max_tokens`` (sent as
        ``max_completion_tokens``), ``length`` (a limit on new tokens), ``zero`` (temperature 0,
        sent as 0.01), ``temperature``, ``seed`` (both left out).
    longest
        Maximum number of new tokens it writes; None if it never complained.
    context
        Tokens of prompt and response together, once known.
    density
        Tokens per character of prompts, as it counts them.
    """

    refused: set[str] = field(default_factory=set)
    longest: int | None = None
    context: int | None = None
    density: float = 0.0

    def told(self) -> list[str]:
        """Say in words what differs from the settings, and which options to set."""
        words = {
            "system": "the server accepts no system role: its text is sent in the user message",
            "zero": f"the server accepts no temperature of 0: {_NEARLY_ZERO} is sent",
            "temperature": "the server accepts no --temperature: its own is used, so answers "
            "may differ when asked again",
            "seed": "the server accepts no --seed: answers may differ when asked again",
        }
        lines = [line for name, line in words.items() if name in self.refused]
        limit = self.longest if self.context is None else self.context
        if limit is not None:
            of = "new tokens" if self.context is None else "tokens of prompt and response"
            lines.append(
                f"the server accepts at most {limit:,} {of}, so answers may be cut off; "
                "set --max-new-tokens to say how long they may be"
            )
        return lines


@dataclass(frozen=True)
class RequestForm:
    """How to ask a model; what the server does not accept is learned on the way.

    Attributes
    ----------
    model, max_new_tokens, temperature, seed, sample
        As in :class:`cello1.solvers.endpoint.solver.EndpointSolver`.
    learned
        What its server does not accept.
    """

    model: str
    max_new_tokens: int
    temperature: float
    seed: int
    sample: int
    learned: Learned = field(default_factory=Learned)

    def request(self, puzzle: Asked) -> dict[str, Any]:
        """Write the request for a puzzle."""
        turns, refused = chat(puzzle), self.learned.refused
        if "system" in refused:
            turns = [{"role": "user", "content": "\n\n".join(turn["content"] for turn in turns)}]
        length = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        low = self.temperature == 0 and "zero" in refused
        optional = {
            length: self._budget(_characters(turns)),
            "temperature": _NEARLY_ZERO if low else self.temperature,
            "seed": self.seed + _SEED_STRIDE * self.sample,
        }
        if "length" in refused:
            del optional[length]
        optional = {k: v for k, v in optional.items() if k == length or k not in refused}
        return {"model": self.model, "messages": turns, **optional}

    def _budget(self, characters: int) -> int:
        """Return how many new tokens to request: the setting, as far as it fits."""
        most = min(self.max_new_tokens, self.learned.longest or self.max_new_tokens)
        if self.learned.context is not None:
            most = min(most, self.learned.context - math.ceil(self.learned.density * characters))
        return max(1, most)

    def learn(self, said: Complaint, request: Mapping[str, Any]) -> bool:
        """Learn from a refusal; return True if the request can now be put differently."""
        if said.status is None or said.status in _NOT_ABOUT_THE_FORM:
            return False
        words = said.message.lower()
        roles = {turn["role"] for turn in request["messages"]}
        if "system" in roles and _about_roles(said, words):
            return self._refuse("system")
        if said.status >= 500:  # only errors of chat templates are known to come this way
            return False
        length = next((k for k in _LENGTHS if k in request), None)
        names = [n for n in (*_LENGTHS, "temperature", "seed") if _names(said, words, n)]
        # That a prompt is too long is often explained with the word max_tokens as well.
        too_large = _TOO_LARGE.search(words) and not _INSTEAD.search(words)
        if length and too_large and (set(names) & {*_LENGTHS} or _ASKED_FOR.search(words)):
            return self._shorten(words, request, request[length])
        if not (_NOT_TAKEN.search(words) or said.code in _NOT_TAKEN_CODES or said.status == 422):
            return False
        if "context length" in words:
            return False
        for name in names:
            if name == "temperature" and _POSITIVE.search(words) and request.get(name) == 0:
                return self._refuse("zero")
            if name in ("temperature", "seed") and name in request:
                return self._refuse(name)
            if name == length:
                return self._refuse("max_tokens" if name == "max_tokens" else "length")
        return False

    def _refuse(self, name: str) -> bool:
        self.learned.refused.add(name)
        return True

    def _shorten(self, words: str, request: Mapping[str, Any], sent: int) -> bool:
        """Request fewer new tokens: as many as the server says fit, else half of them."""
        characters = _characters(request["messages"])
        prompt = next((int(n) for m in _PROMPT_TOKENS.finditer(words) for n in m.groups() if n), 0)
        numbers = [int(n) for n in _NUMBER.findall(words.replace(",", ""))]
        context = re.search(r"context (?:length|window|size)\D{0,20}(\d{2,9})", words)
        whole = int(context[1]) if context else max(numbers, default=0)
        learned = self.learned
        if prompt and context and prompt < whole:
            learned.context = min(whole, learned.context or whole)
            learned.density = max(learned.density, (prompt + 1) / max(1, characters))
            if learned.context - math.ceil(learned.density * characters) < sent:
                return True
        if prompt and context and prompt >= whole - 1:
            return False  # the prompt alone is too long
        fitting = [n for n in numbers if _FEWEST <= n < sent and n != prompt]
        shorter = max(fitting, default=sent // 2)
        if shorter < _FEWEST:
            return False
        learned.longest = min(shorter, learned.longest or shorter)
        return True


def _characters(turns: Sequence[Mapping[str, str]]) -> int:
    return sum(len(turn["content"]) for turn in turns)


def _about_roles(said: Complaint, words: str) -> bool:
    """Return whether a server objects to the system role, in any wording."""
    where = said.param.lower()
    if where.startswith("messages") and where.endswith("role"):
        return True
    return bool(_ROLES.search(words))


def _names(said: Complaint, words: str, name: str) -> bool:
    """Return whether a complaint is about one field of the request."""
    field_named = re.split(r"[.\s]", said.param.lower())[-1] == name
    return field_named or re.search(rf"\b{name}\b", words) is not None
