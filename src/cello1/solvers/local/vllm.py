"""Local language models run by vLLM: the interface of `LanguageSolver` at a server's speed.

Requests enter and leave the engine's running batch one by one, so no puzzle waits for the longest
answer of its batch, and each is reported as soon as it is finished. Common prefixes of prompts are
shared through the engine's prefix cache.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cello1.errors import InputError, first_line
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Failure, OnDone, Response
from cello1.solvers.local.language import MAX_NEW_TOKENS, too_long
from cello1.solvers.local.loading import model_folder, refuse_pickles
from cello1.solvers.local.prompter import Prompter
from cello1.solvers.local.writers import check_spelling, clean_thought

# Puzzles in the engine at once: enough to fill its batch, few enough that the first answers come
# before the last puzzles begin, and a killed run loses little.
_TOGETHER = 256
_OPEN, _CLOSE = "</think>\n<answer>", "</answer>"
_CPU_CACHE_BYTES = 2 << 30
_request_ids = count()


class _Ask(NamedTuple):
    """A request to continue some tokens."""

    tokens: list[int]
    params: Any


# The dialogue of one puzzle: it yields requests, receives vLLM's outputs, and returns its response.
_Talk = Generator[_Ask, Any, Response | Failure]


class VllmModel:
    """A model in vLLM, prompted with the same tokens as anywhere else.

    Parameters
    ----------
    source
        A folder, or a name on the Hugging Face hub.

    Raises
    ------
    InputError
        When vLLM is not installed, there is no model, or its tokenizer has no chat template.
    """

    def __init__(self, source: str) -> None:
        # A process of its own, with none of our modules: vLLM 0.32 fails beside llvmlite on a CPU.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            vllm: Any = import_module("vllm")
        except ImportError as error:
            raise InputError(
                f"engine vllm needs vLLM ({error}); install it with: pip install 'cello1[serve]'"
            ) from error
        folder = model_folder(source)
        refuse_pickles(folder)
        self.prompter = Prompter(source)
        self.prompt, self.vocabulary = self.prompter.prompt, self.prompter.vocabulary
        gpu = torch.cuda.is_available()
        # Compiling takes minutes on a CPU and gains little; half precision is slower there.
        on_cpu = {
            "dtype": "float32",
            "enforce_eager": True,
            "kv_cache_memory_bytes": _CPU_CACHE_BYTES,
        }
        try:
            self.llm: Any = vllm.LLM(
                model=str(folder),
                trust_remote_code=False,
                max_model_len=-1,  # the model's context, or what fits the memory
                enable_prefix_caching=True,
                seed=0,
                **({} if gpu else on_cpu),
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"vLLM cannot load a causal language model from {source!r} ({first_line(error)}); "
                "expected a folder with config, safetensors and tokenizer, or a name on the hub"
            ) from error
        # Without this, Python waits for the engine's process forever on exit.
        atexit.register(self.llm.llm_engine.engine_core.shutdown)
        self.context = int(self.llm.llm_engine.model_config.max_model_len)
        self.sampling: Any = import_module("vllm.sampling_params")


load = cache(VllmModel)  # one engine for all samples of a vote


class VllmSolver:
    """Answers by generating text with vLLM.

    Parameters
    ----------
    source
        A folder, or a name on the Hugging Face hub.
    valid
        Allow only well-formed answers with every type at most once.
    temperature, seed, sample
        0 decodes greedily; otherwise tokens are sampled, with a seed for each puzzle and sample.
    max_new_tokens
        Maximum tokens of a response.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        valid: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        sample: int = 0,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self.model = load(str(source))
        self.valid, self.temperature = valid, temperature
        self.seed, self.sample, self.max_new_tokens = seed, sample, max_new_tokens
        self.name = f"hf:{Path(source).name}{' (valid)' if valid else ''}"
        self.settings: dict[str, Any] = {
            "solver": f"hf:{source}",
            "engine": "vllm",
            "valid": valid,
            "temperature": temperature,
            "seed": seed,
            "sample": sample,
            "max_new_tokens": max_new_tokens,
        }

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer all puzzles, some hundreds at a time; each is reported when finished.

        Raises
        ------
        InputError
            When valid answers are wanted and the tokenizer cannot spell a label.
        """
        if self.valid:
            for puzzle in puzzles:
                check_spelling(self.model.vocabulary, puzzle.candidates)
        write = self._write_valid if self.valid else self._write
        waiting = ((puzzle.id, write(puzzle)) for puzzle in puzzles)
        engine = self.model.llm.llm_engine
        at_work: dict[str, tuple[str, _Talk]] = {}
        replies: list[tuple[str, _Talk, Any]] = []
        last = time.perf_counter()
        try:
            while True:
                room = _TOGETHER - len(at_work) - len(replies)
                replies += [(puzzle_id, talk, None) for puzzle_id, talk in islice(waiting, room)]
                for puzzle_id, talk, said in replies:
                    try:
                        tokens, params = talk.send(said)
                    except StopIteration as end:
                        # Time since the last answer: the seconds add up to those of the run.
                        now, result = time.perf_counter(), end.value
                        if isinstance(result, Response):
                            result, last = replace(result, seconds=now - last), now
                        on_done(puzzle_id, result)
                        continue
                    request = f"{puzzle_id}-{next(_request_ids)}"
                    engine.add_request(request, {"prompt_token_ids": tokens}, params)
                    at_work[request] = (puzzle_id, talk)
                if not replies and not at_work:
                    return
                finished = [out for out in engine.step() if out.finished] if at_work else []
                replies = [(*at_work.pop(out.request_id), out.outputs[0]) for out in finished]
        finally:
            # The engine is shared: an aborted run must not leave work behind.
            engine.abort_request(list(at_work))

    def _write(self, puzzle: Puzzle) -> _Talk:
        """Generate freely until the answer is closed."""
        words = self.model.vocabulary
        prompt, opened = self.model.prompt(puzzle)
        room = self.model.context - len(prompt)
        if room < 1:
            return too_long(puzzle, len(prompt), self.model.context)
        budget = min(room, self.max_new_tokens)
        said = yield _Ask(prompt, self._params(puzzle, 0, budget, stop=[_CLOSE]))
        if said.finish_reason not in ("stop", "length"):
            return Failure(f"vLLM aborted the answer ({said.finish_reason})")
        tokens = _written(said)
        return Response(
            ("<think>" if opened else "") + words.text(tokens),
            prompt_tokens=len(prompt),
            completion_tokens=len(tokens),
            finish_reason=said.finish_reason,
            logprob=_mean_logprob(said),
        )

    def _write_valid(self, puzzle: Puzzle) -> _Talk:
        """Think freely, then choose cell by cell among the remaining labels."""
        words, n = self.model.vocabulary, len(puzzle.cells)
        prompt, opened = self.model.prompt(puzzle)
        before = [*prompt, *([] if opened else words.encode("<think>"))]
        opening = words.encode(_OPEN)
        lengths = sorted((len(words.encode(f" {c} |")) for c in puzzle.candidates), reverse=True)
        # All labels may be read without their blank in front, one may be spelled byte by byte,
        # and an end token follows it.
        spelled = max(len(f" {c}{_CLOSE}".encode()) for c in puzzle.candidates) + 1
        needed = len(before) + len(opening) + sum(lengths[:n]) + n + spelled
        room = self.model.context - needed
        if room < 0:
            return too_long(puzzle, needed, self.model.context)
        budget = min(room, self.max_new_tokens - 2 * sum(lengths[:n]) - len(opening))
        thought, logprob = "", None
        if budget > 0:
            stop = ["</think>", "<answer>"]
            said = yield _Ask(before, self._params(puzzle, 0, budget, stop=stop))
            tokens = _written(said)
            thought = words.text(tokens)
            if isinstance(said.stop_reason, str):
                thought = thought.split(said.stop_reason)[0]
                # A tag may begin within a token: drop tokens until no half of it is left.
                while not thought.startswith(words.text(tokens)):
                    tokens.pop()
            before += tokens
            logprob = _mean_logprob(said)
        before += opening
        left, labels = list(puzzle.candidates), []
        for at in range(n):
            lead, tail = " " if at else "", _CLOSE if at == n - 1 else " |"
            choices = {f"{lead}{c}{tail}": c for c in left}
            chosen = next(iter(choices))
            if len(choices) > 1:
                among = self.model.sampling.StructuredOutputsParams(choice=list(choices))
                params = self._params(puzzle, at + 1, spelled, structured_outputs=among)
                said = yield _Ask([*before], params)
                chosen = words.text(_written(said))
                if chosen not in choices:
                    return Failure(f"vLLM chose no label ({said.finish_reason})")
            left.remove(choices[chosen])
            labels.append(choices[chosen])
            before += words.encode(chosen)
        return Response(
            response_text(clean_thought(thought), tuple(labels)),
            prompt_tokens=len(prompt),
            completion_tokens=len(before) - len(prompt),
            logprob=logprob,  # of the thoughts; among few choices it says little
        )

    def _params(self, puzzle: Puzzle, step: int, budget: int, **more: Any) -> Any:
        sequence = np.random.SeedSequence([self.seed, self.sample, int(puzzle.id, 16), step])
        return self.model.sampling.SamplingParams(
            temperature=self.temperature,
            max_tokens=budget,
            seed=int(sequence.generate_state(1)[0]),
            logprobs=0,  # of the tokens written only
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            output_kind=self.model.sampling.RequestOutputKind.FINAL_ONLY,
            **more,
        )


def _written(said: Any) -> list[int]:
    """Return the tokens of an output without the one that ends the text."""
    tokens = list(said.token_ids)
    ended = said.finish_reason == "stop" and not isinstance(said.stop_reason, str)
    return tokens[:-1] if ended else tokens


def _mean_logprob(said: Any) -> float | None:
    return said.cumulative_logprob / len(said.token_ids) if said.token_ids else None
