"""Language models on this machine: any causal model of `transformers`, from a folder or the hub.

Greedy by default, as the paper evaluates (arXiv 2506.02911: at most 3,500 new tokens). Prompts
are sorted by length and decoded in batches that fit in memory; a batch that does not fit after all
is halved and retried. Remote code is never trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Failure, OnDone, Response
from cello1.solvers.local.attention import decode_faster
from cello1.solvers.local.generate import bytes_per_token, generate
from cello1.solvers.local.loading import load_config, load_model
from cello1.solvers.local.prompter import Prompter
from cello1.solvers.local.writers import FreeWriter, GuidedWriter

MAX_NEW_TOKENS = 3_500
_CPU_CACHE_BYTES = 2 << 30
_GPU_SHARE = 0.7
_MAX_ROWS = {"cpu": 128, "cuda": 256}


class LanguageModel:
    """A model with its tokenizer, ready to be asked.

    Parameters
    ----------
    source
        A folder, a name on the Hugging Face hub, or a prompter.
    model
        Loaded weights, such as those of a model in training; they stay on their device. By default
        weights are loaded.
    device, dtype
        For loading: by default the GPU in bfloat16 if it supports it, else the CPU in float32.

    load
        Load what is needed to ask it. If not, only `name`, `identity` and `config` are known, which
        tell what a run is when others make it.

    Raises
    ------
    InputError
        When there is no model, or its tokenizer has no usable chat template.
    """

    def __init__(
        self,
        source: str | Path | Prompter,
        *,
        model: PreTrainedModel | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        load: bool = True,
    ) -> None:
        if not load:
            self.source = source.source if isinstance(source, Prompter) else source
            self.config: PretrainedConfig = load_config(self.source)
            return
        if model is None:
            folder = source.source if isinstance(source, Prompter) else source
            gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
            half = gpu and torch.cuda.is_bf16_supported()
            model = load_model(folder, dtype or (torch.bfloat16 if half else torch.float32))
            model.to(device or ("cuda" if gpu else "cpu")).eval()  # type: ignore[arg-type]
            decode_faster(model)
        self.prompter = source if isinstance(source, Prompter) else Prompter(source)
        self.source, self.prompt = self.prompter.source, self.prompter.prompt
        self.tokenizer, self.vocabulary = self.prompter.tokenizer, self.prompter.vocabulary
        self.model: PreTrainedModel = model
        self.config = model.config
        self.device = str(model.device)
        self.context = context_of(model.config)
        settings = model.generation_config
        self.ends = self.prompter.ends(settings.eos_token_id if settings else None)

    @property
    def name(self) -> str:
        """Display name."""
        return f"hf:{Path(self.source).name}"

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a run folder records."""
        return {"solver": f"hf:{self.source}"}

    def cache_bytes(self) -> int:
        """Return the bytes that a batch may use for its keys and values."""
        if self.device.startswith("cuda"):
            free, _ = torch.cuda.mem_get_info()
            # What PyTorch keeps for itself, such as after the step of a training, is free as well.
            kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            return int((free + kept) * _GPU_SHARE)
        return _CPU_CACHE_BYTES


def context_of(config: PretrainedConfig) -> int:
    """Return the context length of a model."""
    inner = config.get_text_config(decoder=True)
    return int(getattr(inner, "max_position_embeddings", 0) or 1 << 30)


class LanguageSolver:
    """Answers by generating text.

    Parameters
    ----------
    language
        The model.
    valid
        Allow only well-formed answers with every type at most once.
    temperature, seed, sample
        0 decodes greedily; otherwise tokens are sampled, with a seed for each puzzle and sample,
        so that a response does not depend on its batch.
    max_new_tokens
        Maximum tokens of a response.
    """

    def __init__(
        self,
        language: LanguageModel,
        *,
        valid: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        sample: int = 0,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self.language, self.valid, self.temperature = language, valid, temperature
        self.seed, self.sample, self.max_new_tokens = seed, sample, max_new_tokens
        self.name = f"{language.name}{' (valid)' if valid else ''}"
        self.settings: dict[str, Any] = {
            **language.identity,
            "valid": valid,
            "temperature": temperature,
            "seed": seed,
            "sample": sample,
            "max_new_tokens": max_new_tokens,
        }

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer all puzzles in batches of prompts of similar length."""
        jobs = []
        for puzzle in puzzles:
            prompt, opened = self.language.prompt(puzzle)
            room = self.language.context - len(prompt)
            if room < 1:
                on_done(puzzle.id, too_long(puzzle, len(prompt), self.language.context))
                continue
            jobs.append(
                (prompt, self._writer(puzzle, min(room, self.max_new_tokens), opened), puzzle)
            )
        jobs.sort(key=lambda job: (len(job[0]), job[2].id))
        for batch in self._batches(jobs):
            self._answer(batch, on_done)

    def _writer(self, puzzle: Puzzle, budget: int, opened: bool) -> FreeWriter:
        words, ends = self.language.vocabulary, self.language.ends
        if not self.valid:
            return FreeWriter(words, budget, ends, opened=opened)
        n = len(puzzle.cells)
        return GuidedWriter(words, budget, ends, puzzle.candidates, n, opened=opened)

    def _batches(self, jobs: list[Any]) -> Iterator[list[Any]]:
        """Split the sorted jobs so that the cache of each batch fits even at full length."""
        limit = self.language.cache_bytes() // bytes_per_token(self.language.model)
        most = _MAX_ROWS["cuda" if self.language.device.startswith("cuda") else "cpu"]
        batch: list[Any] = []
        for job in jobs:
            longest = len(job[0]) + self.max_new_tokens
            if batch and (len(batch) >= most or (len(batch) + 1) * longest > limit):
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    def _answer(self, batch: list[Any], on_done: OnDone) -> None:
        """Decode a batch; when out of memory, halve the rest and continue."""
        reported: set[int] = set()

        def report(row: int, seconds: float) -> None:
            prompt, writer, puzzle = batch[row]
            reported.add(row)
            on_done(puzzle.id, _response(writer, len(prompt), seconds))

        try:
            generate(
                self.language.model,
                [prompt for prompt, _, _ in batch],
                [writer for _, writer, _ in batch],
                on_done=report,
                pad=self.language.tokenizer.pad_token_id or 0,
                temperature=self.temperature,
                seeds=[(self.seed, self.sample, int(p.id, 16)) for _, _, p in batch],
            )
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            left = [job for row, job in enumerate(batch) if row not in reported]
            if len(batch) == 1:
                on_done(batch[0][2].id, Failure("out of memory for this puzzle alone"))
                return
            # The writers hold tokens already; each half starts over.
            again = [(p, self._writer(z, w.budget, w.opened), z) for p, w, z in left]
            middle = len(again) // 2
            for half in (again[:middle], again[middle:]):
                if half:
                    self._answer(half, on_done)


def _response(writer: FreeWriter, prompt_tokens: int, seconds: float) -> Response:
    return Response(
        writer.text(),
        seconds=seconds,
        prompt_tokens=prompt_tokens,
        completion_tokens=len(writer.tokens),
        finish_reason=writer.finish_reason,
        logprob=writer.mean_logprob,
    )


def too_long(puzzle: Puzzle, length: int, context: int) -> Failure:
    """Return the failure of a prompt that exceeds the context."""
    return Failure(
        f"prompt of puzzle {puzzle.id} has {length} tokens, the model's context {context}; "
        "list fewer genes per cell or use a model with a longer context"
    )


def _out_of_memory(error: BaseException) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
