"""How a model is prompted: its tokenizer, its chat template, and how a response ends.

A template comes with the model and is a program. It may refuse roles, be broken or never end, so
its time and the length of its output are limited.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from cello1.errors import InputError, brief, first_line
from cello1.puzzles.prompt import Message, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.local.loading import load_tokenizer
from cello1.solvers.local.vocabulary import Vocabulary

Chat = list[dict[str, str]]
_REPLY = "cello1-reply"
_PROBE: Chat = [{"role": "system", "content": "system"}, {"role": "user", "content": "question"}]
_SECONDS = 10.0
_GROWTH, _FIXED = 20, 200_000  # characters per character of the chat, and on top
_PROBE_BYTES = 1 << 30


class Prompter:
    """A tokenizer and its chat template.

    Parameters
    ----------
    source
        A model folder, or a name on the Hugging Face hub.

    Raises
    ------
    InputError
        When there is no tokenizer, or its chat template is missing or broken.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.tokenizer = load_tokenizer(source)
        with _memory_limit(_PROBE_BYTES):
            self.render(_PROBE)
        self.vocabulary = Vocabulary(self.tokenizer)

    def prompt(self, puzzle: Puzzle, *, reply: str = "") -> tuple[list[int], bool]:
        """Return the prompt's tokens, and whether the template has opened ``<think>`` itself.

        Parameters
        ----------
        puzzle
            The puzzle; a system message of its own is used.
        reply
            The beginning of the response, if given.

        Raises
        ------
        InputError
            When the chat template cannot render it.
        """
        return self.asked(messages(puzzle), reply)

    def asked(self, turns: Sequence[Message], reply: str = "") -> tuple[list[int], bool]:
        """Return the same of any chat.

        Raises
        ------
        InputError
            When the chat template cannot render it.
        """
        text = self.render([message._asdict() for message in turns])
        opened = text.rstrip().endswith("<think>")
        return self.vocabulary.encode(text + reply), opened

    def render(self, chat: Chat) -> str:
        """Return the text that asks for a reply to a chat.

        Templates that refuse a system role get its text in the user turn.

        Raises
        ------
        InputError
            When the template refuses this as well, or does not end.
        """
        try:
            return self._apply(chat, add_generation_prompt=True)
        except InputError as error:
            if not isinstance(error.__cause__, Exception) or len(chat) < 2:
                raise
            whole = "\n\n".join(message["content"] for message in chat)
            with suppress(InputError):
                return self._apply([{"role": "user", "content": whole}], add_generation_prompt=True)
            raise

    def _apply(self, chat: Chat, *, add_generation_prompt: bool) -> str:
        limit = _FIXED + _GROWTH * sum(len(message["content"]) for message in chat)
        broken = f"the chat template of {self.source}"
        try:
            with _time_limit(_SECONDS):
                text = self.tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=add_generation_prompt
                )
        except _TooLongError:
            raise InputError(f"{broken} did not end within {_SECONDS:g} s") from None
        except MemoryError:
            raise InputError(f"{broken} needs more than the memory it may have") from None
        except Exception as error:  # jinja and the templates raise errors of their own
            raise InputError(f"{broken} fails: {first_line(error)}") from error
        if len(text) > limit:
            raise InputError(f"{broken} writes {len(text):,} characters around a short chat")
        return str(text)

    def ending(self) -> list[int]:
        """Return the tokens that end a response: what the template writes, up to its end of turn.

        Templates differ in what follows (Qwen: a newline); generation stops before that. The end
        of a turn is the first control token after the response. It need not be the tokenizer's
        `eos_token`: Gemma ends turns with `<end_of_turn>` and documents with `<eos>`.

        Raises
        ------
        InputError
            When neither the template nor the tokenizer has such a token.
        """
        chat = [_PROBE[1], {"role": "assistant", "content": _REPLY}]
        tail = self.vocabulary.encode(
            self._apply(chat, add_generation_prompt=False).rpartition(_REPLY)[2]
        )
        added = self.tokenizer.added_tokens_decoder
        control = {i for i, token in added.items() if token.special}
        control |= {*self.tokenizer.all_special_ids}
        # Some tokenizers do not mark their control tokens as special.
        for candidates in (control, {*added}):
            for place, token in enumerate(tail):
                if token in candidates:
                    return tail[: place + 1]
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                f"the tokenizer of {self.source} has no end token, so the model could not learn "
                "to stop; set tokenizer.eos_token and save it"
            )
        return [self.tokenizer.eos_token_id]

    def ends(self, model_ends: int | Sequence[int] | None) -> list[int]:
        """Return the tokens that end a response.

        Parameters
        ----------
        model_ends
            `eos_token_id` of the model's generation settings.

        Raises
        ------
        InputError
            When these are not token ids.
        """
        named = [*model_ends] if isinstance(model_ends, (list, tuple)) else [model_ends]
        named = [i for i in named if i is not None]
        if not all(isinstance(i, int) and i >= 0 for i in named):
            raise InputError(
                f"the generation settings of {self.source} end a response at {brief(model_ends)}; "
                "expected token ids: fix eos_token_id in generation_config.json"
            )
        with suppress(InputError):  # a template that shows no replies can still be asked
            named.append(self.ending()[-1])
        return sorted({i for i in (*named, self.tokenizer.eos_token_id) if i is not None})


class _TooLongError(BaseException):
    """A template does not end; it cannot catch this itself."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Abort a template after some seconds; unlike signals, this works in every thread."""
    end = time.monotonic() + seconds

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise _TooLongError
        return watch if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    """Limit the further memory of this process, in bytes, where the system supports it."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + more
        if soft == resource.RLIM_INFINITY or limit < soft:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
