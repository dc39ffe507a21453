"""Pre-training of a small model: it learns to look genes up, then to reason over whole puzzles.

The loss counts the response, most of all the genes it cites and the types it names; what stands
in the prompt is data, not language to be learned. Batches are small, for a small model gains more
from many steps than from quiet ones. Each batch depends on the seed and the step alone, so
training killed at any moment goes on from its checkpoint to the same weights.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from transformers import Qwen3Config, Qwen3ForCausalLM

from cello1.errors import InputError
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BaseModelSettings, Stage
from cello1.runs import LOG, write_atomic
from cello1.training.base.stream import Stream
from cello1.training.run.checkpoints import STATE, cut_log
from cello1.training.run.loss import chosen_losses

WARM_UP, FLOOR = 0.02, 0.05  # share of all tokens; share of the highest learning rate at the end
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
CHECKPOINT_SECONDS = 60.0
PLAIN_WEIGHT, CELL_WEIGHT = 0.1, 0.3  # of words, and of which cell comes next


class Batch(NamedTuple):
    """Token ids, padded on the right, and how much each counts, both of shape (rows, length)."""

    ids: torch.Tensor
    weights: torch.Tensor


def new_model(settings: BaseModelSettings, tokenizer: Any) -> Qwen3ForCausalLM:
    """Make a model with random weights that fits the tokenizer."""
    torch.manual_seed(settings.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.hidden // settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer: Any, examples: Sequence[tuple[Puzzle | str, str]]) -> Batch:
    """Lay examples out and weigh their tokens.

    A puzzle is laid out as the solver will, by the chat template; a drill as it stands. Nothing
    of the question counts. Of a response genes and types count most, for which wording comes by
    chance: its noise drowns the look-up that is to be learned. Which cell comes next is less of
    a chance: one not yet settled. Of a drill only genes count.
    """
    weight = token_weights(tokenizer)
    rows = []
    for question, response in examples:
        said = tokenizer.encode(response, add_special_tokens=False)
        weights = [weight.get(token, PLAIN_WEIGHT) for token in said]
        if isinstance(question, str):
            prompt = question
            weights = [float(w == 1.0) for w in weights]
        else:
            chat = [message._asdict() for message in messages(question)]
            prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            said.append(tokenizer.eos_token_id)
            weights.append(PLAIN_WEIGHT)
        asked = tokenizer.encode(prompt, add_special_tokens=False)
        rows.append((asked + said, [0.0] * len(asked) + weights))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    return Batch(ids, torch.tensor([w + [0.0] * (width - len(w)) for _, w in rows]))


@lru_cache(maxsize=4)
def token_weights(tokenizer: Any) -> dict[int, float]:
    """Return what tokens count for: a gene with its comma, a type, a cell."""
    added, vocabulary = tokenizer.added_tokens_decoder, tokenizer.get_vocab()
    weights = {i: CELL_WEIGHT for t, i in vocabulary.items() if re.fullmatch(r"CellĠ\d+", t)}
    weights |= {i: 1.0 for i, token in added.items() if not token.special}
    return weights | {i: 1.0 for t, i in vocabulary.items() if t.endswith(",Ġ")}


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Return the weighted mean loss."""
    counts = batch.weights > 0
    counts[:, 0] = False  # nothing comes before it
    weights = batch.weights[counts]
    return (chosen_losses(model, batch.ids, counts) * weights).sum() / weights.sum()


class Trainer:
    """The loop: one optimiser, a learning rate that warms up and fades, checkpoints.

    Parameters
    ----------
    model, tokenizer
        What learns.
    stream
        Where the puzzles come from.
    settings
        Stages, learning rate and size of a step.
    out
        The run folder: `state.safetensors` while it trains, `log.jsonl`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, stream: Stream, settings: BaseModelSettings, out: Path
    ) -> None:
        self.model, self.tokenizer, self.stream = model, tokenizer, stream
        self.settings, self.out = settings, out
        self.step, self.tokens = 0, 0
        self.total = sum(stage.tokens for stage in settings.stages)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=BETAS,
        )

    def stage(self) -> Stage:
        """Return the stage that the tokens read so far have led to."""
        end = 0
        for stage in self.settings.stages:
            end += stage.tokens
            if self.tokens < end:
                return stage
        return self.settings.stages[-1]

    def rate(self) -> float:
        """Return the learning rate: up in a line, down in a cosine."""
        done = self.tokens / self.total
        if done < WARM_UP:
            return self.settings.learning_rate * max(done / WARM_UP, 0.01)
        fade = (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
        return self.settings.learning_rate * (FLOOR + (1 - FLOOR) * fade)

    def train(self, watch: Callable[[float, float], None]) -> None:
        """Read all tokens there are to read.

        Parameters
        ----------
        watch
            Called after every step with the share done and the loss.

        Raises
        ------
        InputError
            When the loss is no number; the last checkpoint stays.
        """
        self.model.train()
        saved = time.monotonic()
        while self.tokens < self.total:
            start = time.monotonic()
            stage = self.stage()
            batch = encode(self.tokenizer, self.stream.batch(self.step, stage))
            loss, norm = self._learn(batch)
            self.step += 1
            self.tokens += batch.ids.numel()
            seconds = time.monotonic() - start
            self._log(stage, batch, loss, norm, seconds)
            watch(self.tokens / self.total, loss)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()

    def _learn(self, batch: Batch) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss = loss_of(self.model, batch)
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} at step {self.step}; lower learning_rate "
                f"({self.settings.learning_rate}) and run it again: it goes on from the last "
                "checkpoint, or from the start in another --out"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return float(loss.detach()), float(norm.detach())

    def _log(self, stage: Stage, batch: Batch, loss: float, norm: float, seconds: float) -> None:
        line = {
            "step": self.step,
            "tokens": self.tokens,
            "stage": self.settings.stages.index(stage),
            "loss": round(loss, 5),
            "learning_rate": self.rate(),
            "gradient_norm": round(norm, 4),
            "rows": len(batch.ids),
            "padding": round(float((batch.ids == self.tokenizer.pad_token_id).float().mean()), 4),
            "tokens_per_second": round(batch.ids.numel() / seconds),
        }
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        names = {id(p): name for name, p in self.model.named_parameters()}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                yield names[id(parameter)], parameter

    def save(self) -> None:
        """Write weights and optimiser as one file, whole or not at all; nothing is pickled."""
        state = {}
        for name, parameter in self._parameters():
            state[f"weight.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                state[f"{key}.{name}"] = value.detach()
        where = {"step": str(self.step), "tokens": str(self.tokens)}
        write_atomic(self.out / STATE, save(state, metadata=where))

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one; what the log says beyond it goes."""
        path = self.out / STATE
        if path.exists():
            self._load(path.read_bytes())
        cut_log(self.out / LOG, self.step)

    def _load(self, content: bytes) -> None:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        self.step = int(header["__metadata__"]["step"])
        self.tokens = int(header["__metadata__"]["tokens"])
        state = load(content)
        for name, parameter in self._parameters():
            parameter.data.copy_(state[f"weight.{name}"])
            self.optimizer.state[parameter] = {
                key: state[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
