"""Log-probabilities of responses to few prompts: what a group shares is read once.

TRL reads prompt and response of every row. A prompt of eight cells has four times as many tokens as
a small model's response, and a group of eight has it eight times; on a CPU that is most of the
work of a step. Here keys and values of each prompt are computed once, and the gradients of its rows
add up in them.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def can_share(model: Any) -> bool:
    """Say whether every layer of a model attends to all that came before it, and nothing else."""
    cache = DynamicCache(config=model.config)
    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


def response_logprobs(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    length: int,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of every response token, and the entropy where it was drawn.

    Parameters
    ----------
    model
        A causal model; gradients flow.
    input_ids, attention_mask
        Prompts, padded on the left, and responses, padded on the right: shape (rows, tokens).
    length
        Tokens of the responses, padding included.
    temperature
        That they were sampled at.

    Returns
    -------
    torch.Tensor
        Log-probabilities, shape (rows, length); of no meaning under padding.
    torch.Tensor
        Entropies in nats, without gradient, of the same shape.
    """
    prompt_mask, mask = attention_mask[:, :-length], attention_mask[:, -length:]
    padded = input_ids[:, :-length].masked_fill(prompt_mask == 0, -1)
    prompts, row_of = padded.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    seen = (prompts >= 0).long()
    cache = DynamicCache(config=model.config)
    first = model(
        input_ids=prompts.clamp(min=0),
        attention_mask=seen,
        position_ids=(seen.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    cache.batch_select_indices(row_of)
    responses = input_ids[:, -length:]
    logits = first[row_of]
    if length > 1:
        steps = torch.arange(length - 1, device=input_ids.device)
        rest = model(
            input_ids=responses[:, :-1],
            attention_mask=torch.cat([prompt_mask, mask[:, :-1]], dim=1),
            position_ids=prompt_mask.sum(-1, keepdim=True) + steps,
            past_key_values=cache,
            use_cache=True,
        ).logits
        logits = torch.cat([logits, rest], dim=1)
    logits = logits.float() / temperature
    total = logits.logsumexp(dim=-1)
    chosen = logits.gather(-1, responses[..., None])[..., 0] - total
    with torch.no_grad():
        entropies = total - (logits.softmax(dim=-1) * logits).sum(-1)
    return chosen, entropies
