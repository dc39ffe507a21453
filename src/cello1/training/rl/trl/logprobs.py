"""Log-probabilities of responses to few prompts: the prompt of a group is read once.

TRL reads prompt and response of every row. A prompt of eight cells has four times as many tokens as
a small model's response and is repeated for every response of a group; on a CPU that is most of the
work of a step. Here keys and values of each prompt are computed once, and the gradients of its rows
add up in them.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cello1.training.run.loss import has_plain_logits

_TOGETHER = 512  # tokens whose entropy is computed at a time, so that it stays in the cache


def can_share(model: Any) -> bool:
    """Return whether every layer attends to all tokens before it, and the logits are plain."""
    cache = DynamicCache(config=model.config)
    full = bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)
    return full and has_plain_logits(model)


def response_logprobs(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    length: int,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of every response token, and the entropy of its distribution.

    Parameters
    ----------
    model
        A causal model; gradients flow.
    input_ids, attention_mask
        Prompts, padded on the left, and responses, padded on the right: shape (rows, tokens).
    length
        Tokens of the responses, padding included.
    temperature
        The temperature they were sampled at.

    Returns
    -------
    torch.Tensor
        Log-probabilities, shape (rows, length); 0 under padding.
    torch.Tensor
        Entropies in nats, without gradient, of the same shape.
    """
    prompt_mask, mask = attention_mask[:, :-length], attention_mask[:, -length:]
    padded = input_ids[:, :-length].masked_fill(prompt_mask == 0, -1)
    prompts, row_of = padded.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    seen = (prompts >= 0).long()
    cache = DynamicCache(config=model.config)
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    states = whole.base_model(
        input_ids=prompts.clamp(min=0),
        attention_mask=seen,
        position_ids=(seen.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[row_of, -1:]
    cache.batch_select_indices(row_of)
    responses = input_ids[:, -length:]
    if length > 1:
        steps = torch.arange(length - 1, device=input_ids.device)
        rest = whole.base_model(
            input_ids=responses[:, :-1],
            attention_mask=torch.cat([prompt_mask, mask[:, :-1]], dim=1),
            position_ids=prompt_mask.sum(-1, keepdim=True) + steps,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        states = torch.cat([states, rest], dim=1)
    real = mask.bool()  # the output layer is applied only where there is a token
    logits = whole.get_output_embeddings()(states[real]).float() / temperature
    logs = logits.log_softmax(dim=-1)
    chosen = logs.new_zeros(mask.shape)
    chosen[real] = logs.gather(-1, responses[real][:, None])[:, 0]
    entropies = torch.zeros_like(chosen)
    with torch.no_grad():
        entropies[real] = torch.cat([-(p.exp() * p).sum(-1) for p in logs.split(_TOGETHER)])
    return chosen, entropies
