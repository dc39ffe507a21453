"""The loss of chosen tokens on a CPU, computed only where it counts.

Padding is on the right, so causal attention hides it and no mask is needed, which would force
attention onto its slow path on a CPU. And only the states before a token that counts are projected
onto the vocabulary, which for a small model is half of the work.
"""

from __future__ import annotations

from typing import Any

import torch

# Config fields that say that logits are transformed after the output layer.
_TRANSFORMS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)


def has_plain_logits(model: Any) -> bool:
    """Return whether the logits are the plain outputs of the output layer, as assumed here."""
    config = model.config.get_text_config()
    return not any(getattr(config, name, None) for name in _TRANSFORMS)


def chosen_logits(model: Any, ids: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the logits that predict the chosen tokens.

    Parameters
    ----------
    model
        A causal language model, with an adapter or without.
    ids
        Token ids, padded on the right, of shape (rows, length).
    chosen
        Which tokens are to be predicted, of the same shape; the first of a row never can be.

    Returns
    -------
    torch.Tensor
        Shape (chosen tokens, vocabulary), row by row.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    states = whole.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    logits: torch.Tensor = whole.get_output_embeddings()(states[chosen[:, 1:]])
    return logits
