"""Attention for decoding on a CPU: one new token per row, many keys.

PyTorch's kernel for scaled dot products is made for long queries. For a query of one token the
work is to read keys and values once, which two matrix products do twice as fast; where heads share
keys (grouped queries) nothing is copied. Longer queries use PyTorch's kernel as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "cello1_decode"


def decode_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
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
        Shape (rows, key heads, places, width).
    attention_mask
        Mask: True or 0 where attention is allowed, shape (rows, 1, tokens, places).
    scaling
        Scale of the scores; by default 1 / sqrt(width).

    Returns
    -------
    torch.Tensor
        Shape (rows, tokens, heads, width).
    """
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
