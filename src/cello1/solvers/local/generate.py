"""Generate for many prompts at once with any causal language model of `transformers`.

Prompts are read one by one, without padding, and their keys and values are laid side by side, with
ends aligned; a prompt of several consecutive rows is read once. Then all rows are decoded together.
Finished rows leave the batch, so that most rows are never idle while the longest answer is written.
A :class:`Writer` decides the next token of a row; the loop only feeds the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from cello1.solvers.local.attention import NAME as ATTENTION
from cello1.solvers.local.attention import SharedKeys

# The batch is compacted when less than this fraction of its rows is active.
_COMPACT_BELOW = 0.75
_GROWTH = 256
# Models that pass what the cache returns straight to the attention.
_SHARING = ("llama", "qwen2", "qwen3")


class Writer(Protocol):
    """Decides the tokens of one row.

    Attributes
    ----------
    done
        Whether the row is finished.
    """

    done: bool

    def forced(self) -> int | None:
        """Return the token that must come next whatever the model says, or None."""
        ...

    def allowed(self) -> list[int] | None:
        """Return the only tokens that may come next, or None when all may."""
        ...

    def write(self, token: int, logprob: float | None) -> int:
        """Take the next token and its log-probability (None when forced).

        Returns the token that is written, which differs if this one is not allowed.
        """
        ...


class _GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in a buffer with spare room, so that steps copy nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0
        self.buffers: list[torch.Tensor] = []

    def place(self, row: int, rows: int, width: int, states: tuple[torch.Tensor, ...]) -> None:
        """Store the keys and values of one prompt in its row, right-aligned."""
        if not self.buffers:
            self.lazy_initialization(*states)
            self.buffers = [
                s.new_zeros((rows, s.shape[1], width + _GROWTH, s.shape[3])) for s in states
            ]
            self.length = width
        for buffer, own in zip(self.buffers, states, strict=True):
            buffer[row, :, width - own.shape[2] : width] = own[0]
        self._show()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        news = (key_states, value_states)
        if not self.buffers or end > self.buffers[0].shape[-2]:
            room = [n.new_empty((*n.shape[:2], end + _GROWTH, n.shape[-1])) for n in news]
            for new, old in zip(room, self.buffers, strict=False):
                new[:, :, : self.length] = old[:, :, : self.length]
            self.buffers = room
        for buffer, states in zip(self.buffers, news, strict=True):
            buffer[:, :, self.length : end] = states
        self.length = end
        return self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)
        return self.keys, self.values


class _SharedLayer(_GrowingLayer):  # type: ignore[no-untyped-call]
    """The same, with each prompt held once for all its rows."""

    def __init__(self, prompt_of: Sequence[int]) -> None:
        super().__init__()
        self.prompt_of, self.width = list(prompt_of), 0
        self.read: list[torch.Tensor] = []
        self.shared: SharedKeys | None = None

    def place(self, row: int, rows: int, width: int, states: tuple[torch.Tensor, ...]) -> None:
        """Store the keys and values of a prompt, when its first row is placed."""
        number, self.width = self.prompt_of[row], width
        if not self.read:
            shape = (self.prompt_of[-1] + 1, states[0].shape[1], width, states[0].shape[3])
            self.read = [s.new_zeros(shape, dtype=torch.float32) for s in states]
        if row == 0 or self.prompt_of[row - 1] != number:
            for whole, own in zip(self.read, states, strict=True):
                whole[number, :, width - own.shape[2] :] = own[0].float()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        shared = self._shared()
        shared.written = super().update(key_states.float(), value_states.float())
        return shared, shared

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.buffers:  # something was written after the prompts
            super().batch_select_indices(indices)
        shared = self._shared()
        shared.select([shared.prompt_of[i] for i in indices.tolist()])

    def _shared(self) -> SharedKeys:
        if self.shared is None:
            keys, values = self.read
            self.shared, self.read = SharedKeys((keys, values), self.prompt_of), []
        return self.shared

    def get_seq_length(self) -> int:
        return self.width + self.length


def _shares_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> bool:
    """Return whether most rows have the prompt of the row before, and the layers allow sharing."""
    repeated = sum(list(a) == list(b) for a, b in zip(prompts[1:], prompts, strict=False))
    config = model.config
    known = config.model_type in _SHARING and config._attn_implementation == ATTENTION
    return known and 2 * repeated >= len(prompts)


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """Return an empty cache; if every layer attends to all tokens, one that grows in place."""
    cache = DynamicCache(config=model.config)
    if all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers = [_GrowingLayer() for _ in cache.layers]
    return cache


def bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes that one token of one row takes in the cache."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    writers: Sequence[Writer],
    *,
    on_done: Callable[[int, float], None],
    pad: int,
    temperature: float = 0.0,
    seeds: Sequence[Sequence[int]] | None = None,
) -> None:
    """Decode all prompts until every writer is done.

    Parameters
    ----------
    model
        A causal language model in evaluation mode.
    prompts
        Token ids, one list per row.
    writers
        One per row; they collect the tokens.
    on_done
        Called as soon as a row is finished, with its index and its seconds: the time of every
        step is divided among the rows that took part.
    pad
        The id to pad with (it is masked).
    temperature
        0 takes the likeliest token; else tokens are sampled.
    seeds
        One seed per row, needed for sampling, so a row draws the same numbers in any batch.
    """
    device = model.device
    width = max(map(len, prompts))
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    rngs = [np.random.default_rng(list(seed)) for seed in seeds] if temperature > 0 else None  # type: ignore[union-attr]
    rows = list(range(len(prompts)))  # index of the prompt of each row of the batch
    at_work = set(rows)
    spent, last = 0.0, time.perf_counter()  # seconds of a row present from the start
    cache = new_cache(model)
    if _shares_prompts(model, prompts) and isinstance(cache.layers[0], _GrowingLayer):
        starts = [row > 0 and list(prompts[row]) != list(prompts[row - 1]) for row in rows]
        numbers = np.cumsum(starts).tolist()
        cache.layers = [_SharedLayer(numbers) for _ in cache.layers]
    logits = _read(model, prompts, mask, pad, cache)
    position = torch.tensor([[len(p) - 1] for p in prompts], device=device)
    while True:
        active = [writers[row] for row in rows]
        draws = None if rngs is None else [rngs[row].random() for row in rows]
        tokens = _next_tokens(logits.float(), active, temperature, draws)
        left = [i for i, writer in enumerate(active) if not writer.done]
        now = time.perf_counter()
        spent, last = spent + (now - last) / len(at_work), now
        for row in [row for row in rows if row in at_work and writers[row].done]:
            at_work.remove(row)
            on_done(row, spent)
        if not left:
            return
        ids = torch.tensor(tokens, device=device)[:, None]
        position = position + 1
        if len(left) < _COMPACT_BELOW * len(rows):
            keep = torch.tensor(left, device=device)
            cache.batch_select_indices(keep)
            ids, mask, position = ids[keep], mask[keep], position[keep]
            rows = [rows[i] for i in left]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


def _read(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    mask: torch.Tensor,
    pad: int,
    cache: DynamicCache,
) -> torch.Tensor:
    """Read all prompts into the cache; return the logits behind their last tokens."""
    rows, width = mask.shape
    layers: list[Any] = cache.layers
    if not all(isinstance(layer, _GrowingLayer) for layer in layers):
        # Sliding windows and the like keep their own state, so these are read in one batch.
        ids = [[pad] * (width - len(p)) + [*p] for p in prompts]
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        out = model(
            input_ids=torch.tensor(ids, device=mask.device),
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return torch.as_tensor(out.logits[:, -1])
    logits: list[torch.Tensor] = []
    for row, prompt in enumerate(prompts):
        if row == 0 or prompt != prompts[row - 1]:  # repeated prompts are read once
            own: Any = DynamicCache(config=model.config)
            one = torch.tensor([list(prompt)], device=mask.device)
            out = model(input_ids=one, past_key_values=own, use_cache=True, logits_to_keep=1)
        logits.append(out.logits[:, -1])
        for layer, read in zip(layers, own.layers, strict=True):
            layer.place(row, rows, width, (read.keys, read.values))
    return torch.cat(logits)


def _next_tokens(
    logits: torch.Tensor,
    writers: Sequence[Writer],
    temperature: float,
    draws: Sequence[float] | None,
) -> list[int]:
    """Choose and write one token per row; finished rows get a token that is ignored."""
    chosen = _choose(logits, temperature, draws).tolist()
    total = torch.logsumexp(logits, dim=-1).tolist()
    raw = logits.gather(1, torch.tensor(chosen, device=logits.device)[:, None])[:, 0].tolist()
    tokens = []
    for i, writer in enumerate(writers):
        token = int(chosen[i])
        if not writer.done:
            if (must := writer.forced()) is not None:
                token = writer.write(must, None)
            else:
                if (allowed := writer.allowed()) is not None:
                    among = torch.tensor(allowed, device=logits.device)
                    draw = None if draws is None else [draws[i]]
                    token = allowed[int(_choose(logits[i, among][None], temperature, draw))]
                    raw[i] = float(logits[i, token])
                token = writer.write(token, raw[i] - total[i])
        tokens.append(token)
    return tokens


def _choose(
    logits: torch.Tensor, temperature: float, draws: Sequence[float] | None
) -> torch.Tensor:
    """Return the likeliest tokens, or those selected by draws in [0, 1)."""
    if draws is None:
        return logits.argmax(dim=-1)
    shares = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    at = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * shares[:, -1:]
    return torch.searchsorted(shares, at, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
