"""Attention for decoding on a CPU: one new token per row, many keys.

PyTorch's kernel for scaled dot products is made for long queries. For a query of one token the
work is to read keys and values once, which two matrix products do twice as fast; where heads share
keys (grouped queries) nothing is copied. Longer queries use PyTorch's kernel as before.

Where several rows have one prompt, as the responses of a group in reinforcement learning, its keys
and values are held and read once for all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "cello1_decode"


class SharedKeys:
    """Keys and values of a layer: of each prompt once, and of what its rows have written since.

    All are in float32: most of the work is reading them, and products of few rows are not faster
    in half precision.

    Attributes
    ----------
    prompts
        Keys and values of the prompts, ends aligned; shape (prompts, key heads, places, width).
    written
        Keys and values of the tokens after them, shape (rows, key heads, places, width).
    """

    def __init__(self, prompts: tuple[torch.Tensor, torch.Tensor], prompt_of: list[int]) -> None:
        self.prompts = prompts
        self.written: tuple[torch.Tensor, torch.Tensor] = prompts
        self.select(prompt_of)

    def select(self, prompt_of: list[int]) -> None:
        """Say which prompt each row has; rows of one prompt follow each other."""
        first = [i for i, p in enumerate(prompt_of) if i == 0 or p != prompt_of[i - 1]]
        sizes = [b - a for a, b in zip(first, [*first[1:], len(prompt_of)], strict=True)]
        if len(sizes) < len(self.prompts[0]):
            kept = torch.tensor([prompt_of[i] for i in first])
            self.prompts = self.prompts[0][kept], self.prompts[1][kept]
        self.most = max(sizes)
        self.first = torch.tensor(first)
        # Place of each row among rows padded to the largest group.
        self.place = torch.tensor(
            [g * self.most + j for g, n in enumerate(sizes) for j in range(n)]
        )
        self.prompt_of = [g for g, n in enumerate(sizes) for _ in range(n)]

    def attend(self, query: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Attend to the prompt and to what was written, in the signature of `decode_attention`."""
        keys, values = self.prompts
        groups, heads, places, width = keys.shape
        rows = len(query)
        asked = (query.float() * scale).view(rows, heads, -1, width)
        each = asked.shape[2]
        padded = asked.new_zeros(groups * self.most, heads, each, width)
        padded[self.place] = asked
        together = padded.view(groups, self.most, heads, each, width).transpose(1, 2)
        scores = together.reshape(groups, heads, -1, width) @ keys.transpose(-1, -2)
        if mask is not None:
            hidden = mask[self.first, :, :, :places]
            if hidden.dtype == torch.bool:
                scores.masked_fill_(~hidden, torch.finfo(scores.dtype).min)
            else:
                scores += hidden

        def of_rows(found: torch.Tensor) -> torch.Tensor:
            parts = found.view(groups, heads, self.most, each, -1).transpose(1, 2)
            return parts.reshape(groups * self.most, heads, each, -1)[self.place]

        top, total, mixed = (of_rows(found) for found in _partial(scores, values))
        own_top, own_total, own = _partial(
            asked @ self.written[0].transpose(-1, -2), self.written[1]
        )
        largest = torch.maximum(top, own_top)
        weight, own_weight = (top - largest).exp(), (own_top - largest).exp()
        told = (weight * mixed + own_weight * own) / (weight * total + own_weight * own_total)
        return told.view(rows, 1, -1, width).to(query.dtype)


def _partial(
    scores: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the largest score, the sum of exponentials below it, and the sum of values by them."""
    top = scores.amax(-1, keepdim=True)
    shares = (scores - top).exp_()
    return top, shares.sum(-1, keepdim=True), shares @ values


def decode_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | SharedKeys,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend, in the signature of `transformers`.

    Parameters
    ----------
    module
        The attention layer.
    query
        Shape (rows, heads, tokens, width).
    key, value
        Shape (rows, key heads, places, width), or keys and values in one object.
    attention_mask
        Mask: True or 0 where attention is allowed, shape (rows, 1, tokens, places).
    scaling
        Scale of the scores; by default 1 / sqrt(width).

    Returns
    -------
    torch.Tensor
        Shape (rows, tokens, heads, width).
    """
    if isinstance(key, SharedKeys):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return key.attend(query, attention_mask, scale), None
    if query.shape[2] > 1:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return out, None
    rows, heads, _, width = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    scale = width**-0.5 if scaling is None else scaling
    if query.dtype == torch.bfloat16:  # where products of one row are slow
        out = scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, scale=scale
        )
        return out.view(rows, 1, heads, width), None
    scores = torch.matmul(grouped * scale, key.transpose(-1, -2))
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    out = torch.matmul(scores.softmax(-1), value)
    return out.view(rows, 1, heads, width), None


def decode_faster(model: PreTrainedModel) -> None:
    """Let a model on a CPU use this attention, if it now uses PyTorch's kernel."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, decode_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
