"""The data type that trainings compute in.

Weights, losses and the state of the optimizer stay in float32; only products of matrices are in
half precision, and only where the device has units for them. There bfloat16 is several times as
fast; elsewhere on a CPU it is ten times as slow.
"""

from __future__ import annotations

import copy
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# oneDNN, which computes in bfloat16 on CPUs, keeps code and buffers for the last 1,024 shapes of
# matrices. In training almost every batch has another shape: a small model grew to 13 GB in 250
# steps. It is read at the first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def training_dtype(device: torch.device | str) -> torch.dtype:
    """Return the data type to compute in: bfloat16 where the device has units for it.

    On a CPU these are the tiles of AMX (Intel servers since 2023): a product of matrices takes
    a tenth of the time there.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        half = torch.cuda.is_bf16_supported()
    else:
        amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        half = kind == "cpu" and amx()
    return torch.bfloat16 if half else torch.float32


def arithmetic(device: torch.device | str) -> AbstractContextManager[Any]:
    """Return the context to compute in with float32 weights."""
    dtype = training_dtype(device)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype)


def for_sampling(model: PreTrainedModel, *, half: bool) -> PreTrainedModel:
    """Return the model to draw responses from; its weights are those of now.

    If float32 weights are trained in bfloat16, it is a copy in bfloat16: at one token a step,
    casting the weights and the keys of all tokens before it would take longer than the step.

    Parameters
    ----------
    model
        The model in training.
    half
        Whether training computes in bfloat16.
    """
    if not half or model.dtype != torch.float32:
        return model
    made: Any = copy.deepcopy(model)
    return made.to(torch.bfloat16)  # type: ignore[no-any-return]
