"""What PPO computes with models: the probability of responses, and how they are expected to end.

Prompts are padded on the left and responses on the right, so that all responses of a batch begin
in one column and only their columns are turned into probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from cello1.solvers.local.attention import decode_faster
from cello1.solvers.local.loading import load_model

Tensor = torch.Tensor


@dataclass(frozen=True)
class Rows:
    """Prompts with the responses to them.

    Attributes
    ----------
    ids, mask
        Token ids and where there are tokens, shape (rows, prompt columns + response columns).
    said
        Where there are tokens of responses, shape (rows, response columns), float.
    """

    ids: Tensor
    mask: Tensor
    said: Tensor

    def take(self, rows: Tensor) -> Rows:
        """Return some rows, without columns that none of them needs."""
        said = self.said[rows]
        width = int(said.sum(dim=1).max())
        start = self.ids.shape[1] - self.said.shape[1]
        first = int(self.mask[rows].argmax(dim=1).min())
        kept = slice(first, start + width)
        return Rows(self.ids[rows, kept], self.mask[rows, kept], said[:, :width])

    def positions(self) -> Tensor:
        """Return the position of every token in its own text."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)


def lay_out(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: str
) -> Rows:
    """Lay prompts and responses out side by side; what is padded is masked."""
    left, right = max(map(len, prompts)), max(map(len, responses))
    ids = torch.zeros(len(prompts), left + right, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        place = slice(left - len(prompt), left + len(response))
        ids[row, place] = torch.tensor([*prompt, *response])
        mask[row, place] = 1
    return Rows(ids.to(device), mask.to(device), mask[:, left:].float().to(device))


def arithmetic(device: str) -> AbstractContextManager[Any]:
    """Return the precision to compute in: bfloat16 on a GPU that has it; weights stay float32."""
    if device.startswith("cuda") and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def load_policy(folder: Path, device: str) -> Any:
    """Load a language model with float32 weights; in bfloat16 small steps would vanish.

    It stays in evaluation mode: dropout would make a token as likely as it was not when written.
    """
    model: Any = load_model(folder, torch.float32)
    model.to(device).eval()
    decode_faster(model)
    return model


def logprobs(model: Any, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every token said, and the entropy of what it was chosen from.

    Returns
    -------
    tuple
        Both of shape (rows, response columns), float32; of padding they mean nothing.
    """
    width = rows.said.shape[1]
    with arithmetic(str(rows.ids.device)):
        logits = model(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            position_ids=rows.positions(),
            use_cache=False,
            logits_to_keep=width + 1,
        ).logits[:, :-1]
    logs = logits.float().log_softmax(dim=-1)
    chosen = logs.gather(-1, rows.ids[:, -width:, None])[..., 0]
    return chosen, -(logs.detach().exp() * logs.detach()).sum(dim=-1)


class Critic(torch.nn.Module):
    """Foretells the return of a response from its beginning: a model's trunk with a value head.

    A trunk of its own, as in the paper, so that the two learning rates do not interfere. The
    head starts at 0: before anything is learned, nothing is expected.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.trunk: Any = load_model(folder, torch.float32, kind=AutoModel)
        width = self.trunk.config.get_text_config(decoder=True).hidden_size
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, rows: Rows) -> Tensor:
        """Return what is expected before every token, shape (rows, response columns)."""
        width = rows.said.shape[1]
        with arithmetic(str(rows.ids.device)):
            states = self.trunk(
                input_ids=rows.ids,
                attention_mask=rows.mask,
                position_ids=rows.positions(),
                use_cache=False,
            ).last_hidden_state
        return torch.as_tensor(self.head(states[:, -width - 1 : -1].float()))[..., 0]
