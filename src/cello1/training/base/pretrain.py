"""Pre-train a small model: it learns to rate candidates, then to write its reasons.

Every step asks the question of the likelihood decoder for every cell of some puzzles. The loss is
the cross-entropy among the candidates, plus the negative log of the probability that the whole
vocabulary's softmax gives to them, which teaches the model which labels are candidates. For a
share of the puzzles it also writes a response after the same prompt: its ratings in percent, then
for each cell its type with the genes that support it, and the answer. Each step depends on the seed
and its number alone, so that an interrupted training resumes from its checkpoint and ends with the
same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from cello1.errors import InputError
from cello1.runs import LOG, append_line, write_atomic
from cello1.training.base.copying import keep_identity, solved_layers
from cello1.training.base.forward import States, hidden_states
from cello1.training.base.layout import (
    Layout,
    Lesson,
    Questions,
    decisions,
    questions,
    response,
)
from cello1.training.base.practice import Practice, Size
from cello1.training.base.tokens import MOST_CELLS
from cello1.training.run.checkpoints import STATE, cut_log
from cello1.training.run.precision import training_dtype

WARM_UP, FLOOR = 0.03, 0.02  # share of all steps; share of the highest learning rate at the end
BETAS, DECAY, CLIP = (0.9, 0.98), 0.05, 1.0
CHECKPOINT_SECONDS = 60.0
COPIED = 1.0  # initial scale of the output of the look-up layer
LOOK_UP = 0.2  # weight of the loss of which cell a gene belongs to
OFFERED = 1.0  # weight of the loss of which labels are on offer
FORM = 2.0  # weight of the loss of types and genes that are not on offer, or given twice
FASTER = 4.0  # learning rate of layers with closed-form weights, relative to the others
_OWN = 0.5  # share of the written puzzles with the model's own ratings; the others are perturbed
_LEAST = 0.15  # scale of these at the least: strangers are harder than practice
_NOISE = (0.4, 1.2)  # of these, in units of Gumbel noise
_SWAPPED = 0.15  # share of the written puzzles in which two lines have each other's type
_PER_CELL, _PER_PUZZLE = 14, 60  # tokens besides the genes, including the questions
IGNORED = -100


class Work(NamedTuple):
    """The input of one step."""

    asked: Questions
    lessons: list[Lesson]  # those that are written as well


class Texts(NamedTuple):
    """Written responses after prompts, shape (rows, longest) each.

    Attributes
    ----------
    ids, targets, weights
        As :func:`cello1.training.base.layout.response` returns them, padded on the right.
    allowed
        The same, shape (rows, longest, most).
    about
        The same, from 0 on and -1 where there is none; shape (rows, longest).
    ends
        Length of each prompt, including the opening ``<think>``; shape (rows,).
    """

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    allowed: torch.Tensor
    about: torch.Tensor
    ends: torch.Tensor


class Feed(torch.utils.data.Dataset[Work]):
    """Makes the input of any step, in any process."""

    def __init__(self, practice: Practice, layout: Layout, stages: Sequence[Any], pad: int) -> None:
        self.practice, self.layout, self.stages, self.pad = practice, layout, stages, pad
        self.ends = np.cumsum([stage.steps for stage in stages])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def stage(self, step: int) -> int:
        """Return which stage a step is in."""
        return min(int(np.searchsorted(self.ends, step, side="right")), len(self.stages) - 1)

    def __getitem__(self, step: int) -> Work:
        stage = self.stages[self.stage(step)]
        rng = np.random.default_rng([self.practice.seed, step])
        n = int(rng.integers(stage.cells[0], stage.cells[1], endpoint=True))
        genes = int(rng.integers(stage.genes[0], stage.genes[1], endpoint=True))
        size = Size(n, genes, stage.distractors, stage.plain)
        length = n * (genes + _PER_CELL) + _PER_PUZZLE
        many = max(1, stage.batch_tokens // length)
        written = round(many * stage.written)
        lessons = []
        # All prompts of a step or none: the others would be padded to twice their length.
        told = bool(stage.evidence) and rng.random() < stage.evidence
        for i in range(many):
            draft = self.practice.draw(step, i, size)
            lessons.append(self.layout.lesson(draft, rng, cite=i < written, evidence=told))
        return Work(questions(self.layout, lessons, self.pad), lessons[:written])


def new_model(
    tokenizer: Any, *, hidden: int, layers: int, heads: int, context: int, seed: int
) -> Qwen3ForCausalLM:
    """Make a model with random weights that fits the tokenizer."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=5 * hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.rates_candidates = True  # the likelihood decoder asks as in training
    return Qwen3ForCausalLM(config)


def start_from(model: Any, layout: Layout, share: float = 0.5, scale: float = 0.05) -> None:
    """Initialise embeddings of genes and types by an SVD of their log ratios.

    Parameters
    ----------
    model
        The model; `share` of the width of its embeddings is set, the rest stays random.
    layout
        Genes, types and words, and their log ratios.
    share, scale
        Share of the width that is set, and standard deviation of its values.
    """
    weight = model.get_input_embeddings().weight
    known = layout.telling
    u, s, v = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)
    width = min(round(weight.shape[1] * share), len(s))
    root = np.sqrt(s[:width])
    genes, types = v[:width].T * root, u[:, :width] * root
    genes, types = genes / genes.std() * scale, types / types.std() * scale
    with torch.no_grad():
        single = layout.single
        rows = np.flatnonzero(single >= 0)
        weight[single[rows], :width] = torch.tensor(genes[rows], dtype=weight.dtype)
        # A word is initialised to the mean of the types whose names contain it.
        words: dict[int, list[int]] = {}
        for kind, label in enumerate(layout.practice.sources.types):
            (token,) = layout.spell(label, "", True, 0)
            weight[token, :width] = torch.tensor(types[kind], dtype=weight.dtype)
            for name in {label, *layout.practice.sources.names[kind]}:
                for lead in ("", " "):
                    for word in set(layout.spell(name, lead, False, 0)):
                        if word != token:
                            words.setdefault(word, []).append(kind)
        for word, kinds in words.items():
            mean = types[kinds].mean(axis=0)
            weight[word, :width] = torch.tensor(mean, dtype=weight.dtype)
    _wire(model, layout, width)


def _wire(model: Any, layout: Layout, width: int) -> None:
    """Initialise one layer as the look-up: a question attends to the genes of its cell.

    The number of a cell gets its own dimensions, beside those of genes and types. Queries and keys
    of some heads read the number, and their values copy the dimensions of the genes; so from the
    first steps a rating is the sum of the tables' log ratios of the cell's genes.
    """
    config = model.config
    size, heads = config.head_dim, config.num_attention_heads
    weight = model.get_input_embeddings().weight
    free = weight.shape[1] - width
    count = min(MOST_CELLS, free)
    own = model.model.layers[min(look_up_layer(model), len(model.model.layers) - 1)].self_attn
    # Only in dimensions of slow rotation do queries and keys match at any distance.
    slow = size // 2 - size // 4
    places = [*range(slow, size // 2), *range(size // 2 + slow, size)]
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for i in range(1, count + 1):
            (token,) = layout.cell(i, "")
            weight[token] = 0.0
            weight[token, width + i - 1] = 1.0
        for head in range(min(heads, -(-width // size))):
            rows = slice(head * size, (head + 1) * size)
            code = torch.randn(len(places), count, generator=rng) / len(places) ** 0.5
            for projection in (own.q_proj.weight, own.k_proj.weight):
                projection[rows] = 0.0
                for row, line in zip(places, code, strict=True):
                    projection[head * size + row, width : width + count] = line
            part = range(head * size, min((head + 1) * size, width))
            own.v_proj.weight[rows] = 0.0
            own.o_proj.weight[:, rows] = 0.0
            for k in part:
                own.v_proj.weight[k, k] = 1.0
                own.o_proj.weight[k, k] = COPIED


def sees(block: torch.Tensor) -> torch.Tensor:
    """Return the attention mask, shape (rows, 1, length, length).

    A question attends to the prompt (block 0) and itself, never to another question.
    """
    own = block[:, :, None] == block[:, None, :]
    before = torch.ones(block.shape[1], block.shape[1], dtype=torch.bool, device=block.device)
    visible = (own | (block[:, None, :] == 0)) & before.tril()
    return visible[:, None]


class Chosen(NamedTuple):
    """A model's answers to questions.

    Attributes
    ----------
    logs
        Log-probabilities of all options, shape (choices, most).
    offered
        Mean negative log of the probability of all options together: a loss.
    lost
        Mean loss of predicting, after a third of the layers, which cell a gene belongs to. Ratings
        need this look-up, and learn it late from their own loss.
    states
        Hidden states of all tokens.
    """

    logs: torch.Tensor
    offered: torch.Tensor
    lost: torch.Tensor
    states: States


def choose(
    model: Any, asked: Questions, numbers: torch.Tensor, dtype: torch.dtype = torch.float32
) -> Chosen:
    """Let a model answer questions.

    Parameters
    ----------
    model, asked
        The model, and the questions.
    numbers
        The tokens ``Cell 1``, ``Cell 2``, ...
    dtype
        Data type to compute in.
    """
    device = model.device
    states = hidden_states(
        model,
        torch.from_numpy(asked.ids).to(device).long(),
        sees=sees(torch.from_numpy(asked.block).to(device)),
        position=torch.from_numpy(asked.position).to(device).long(),
        early=look_up_layer(model),
        dtype=dtype,
    )
    assert states.early is not None
    flat = torch.from_numpy(asked.row.astype(np.int64) * asked.ids.shape[1] + asked.at).to(device)
    options = torch.from_numpy(asked.options).to(device).long()
    state = states.last.flatten(0, 1).index_select(0, flat)
    head = model.get_output_embeddings().weight
    logits = functional.linear(state, head.to(dtype)).float()
    among = logits.gather(1, options.clamp(min=0)).masked_fill(options < 0, -torch.inf)
    theirs = torch.logsumexp(among, dim=-1)
    offered = (torch.logsumexp(logits, dim=-1) - theirs).mean()
    about = torch.from_numpy(asked.about).to(device).long() - 1
    told = functional.linear(states.early, head[numbers].to(dtype)).float()
    lost = functional.cross_entropy(told.flatten(0, 1), about.flatten(), ignore_index=-1)
    return Chosen(among - theirs[:, None], offered, lost, states)


def look_up_layer(model: Any) -> int:
    """Return the number of layers after which a gene's state encodes its cell."""
    return max(1, int(model.config.num_hidden_layers) // 3)


def ratings(asked: Questions, lessons: Sequence[Lesson], logs: Any) -> list[Any]:
    """Return the ratings of all candidates for the first lessons, shape (N, M) each.

    Choices that were not asked, off the path to the right label, count as uniform.
    """
    row = asked.owner // 64
    found = []
    for r, lesson in enumerate(lessons):
        mine = np.flatnonzero(row == r)
        n, m = len(lesson.gold), len(lesson.labels)
        if len(lesson.tree.choices) == 1:
            columns = [lesson.tree.path(j)[0][2] for j in range(m)]
            found.append(logs[mine][:, columns])
            continue
        rating = np.zeros((n, m), np.float32)
        paths = [lesson.tree.path(j) for j in range(m)]
        at = 0
        for i, gold in enumerate(lesson.gold):
            known = {}
            for depth, _, _ in paths[gold]:
                known[lesson.tree.labels[gold][:depth]] = logs[mine[at]]
                at += 1
            for j in range(m):
                for depth, options, target in paths[j]:
                    logs_here = known.get(lesson.tree.labels[j][:depth])
                    even = -math.log(len(options))
                    rating[i, j] += even if logs_here is None else logs_here[target]
        found.append(rating)
    return found


class Trainer:
    """The training loop: optimiser, learning rate with warm-up and decay, checkpoints.

    Parameters
    ----------
    model, layout, practice
        The model, the layout of puzzles in tokens, and their source.
    stages
        Steps, sizes and shares of written puzzles, from easy to hard.
    learning_rate
        The peak learning rate.
    out
        The run folder: `state.safetensors` during training, `log.jsonl`.
    workers
        Processes that draw puzzles; the puzzles do not depend on their number.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        practice: Practice,
        stages: Sequence[Any],
        learning_rate: float,
        out: Path,
        *,
        workers: int = 0,
    ) -> None:
        self.model, self.layout, self.out = model, layout, out
        keep_identity(model)
        self.learning_rate, self.workers = learning_rate, workers
        self.pad = layout.tokenizer.pad_token_id
        self.feed = Feed(practice, layout, stages, self.pad)
        numbers = [layout.cell(i, "")[0] for i in range(1, MOST_CELLS + 1)]
        self.numbers = torch.tensor(numbers, device=model.device)
        self.step, self.tokens, self.total = 0, 0, len(self.feed)
        self.dtype = training_dtype(model.device)
        solved = solved_layers(model)
        groups = []
        for new in (False, True):
            for matrix in (True, False):
                own = [p for n, p in model.named_parameters()
                       if (p.ndim > 1) == matrix and n.startswith(solved) == new]  # fmt: skip
                groups.append(
                    {
                        "params": own,
                        "weight_decay": DECAY if matrix else 0.0,
                        "faster": FASTER if new else 1.0,
                    }
                )
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=learning_rate,
            betas=BETAS,
            fused=True,
        )

    def done(self) -> float:
        """Return the share of the training that is done."""
        return self.step / self.total

    def rate(self) -> float:
        """Return the learning rate: linear warm-up, cosine decay."""
        done = self.done()
        if done < WARM_UP:
            return self.learning_rate * max(done / WARM_UP, 0.01)
        fade = (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
        return self.learning_rate * (FLOOR + (1 - FLOOR) * fade)

    def train(
        self,
        watch: Callable[[float, float], None],
    ) -> None:
        """Take all remaining steps.

        Parameters
        ----------
        watch
            Called after every step with the share done and the loss.

        Raises
        ------
        InputError
            When the loss is not finite; the last checkpoint is kept.
        """
        self.model.train()
        saved = time.monotonic()
        start = time.monotonic()
        for work in self._work():
            losses = self._learn(work)
            self.step += 1
            self.tokens += losses.pop("read")
            now = time.monotonic()
            self._log(losses, now - start)
            start = now
            watch(self.done(), losses["rating"])
            if now - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()

    def _work(self) -> Iterator[Work]:
        return iter(
            torch.utils.data.DataLoader(
                self.feed,
                batch_size=None,
                sampler=range(self.step, self.total),
                num_workers=self.workers,
                prefetch_factor=4 if self.workers else None,
                collate_fn=_as_it_is,  # type: ignore[arg-type]  # there is no list to collate
            )
        )

    def _learn(self, work: Work) -> dict[str, Any]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group["faster"]
        self.optimizer.zero_grad(set_to_none=True)
        asked = work.asked
        chosen = choose(self.model, asked, self.numbers, self.dtype)
        target = torch.from_numpy(asked.target).to(chosen.logs.device).long()
        cells = len(np.unique(asked.owner))
        rating = functional.nll_loss(chosen.logs, target, reduction="sum") / cells
        loss = rating + LOOK_UP * chosen.lost + OFFERED * chosen.offered
        losses: dict[str, Any] = {
            "rating": rating.detach(),
            "offered": chosen.offered.detach(),
            "look_up": chosen.lost.detach(),
        }
        losses["read"] = asked.ids.size
        if work.lessons:
            text = self._texts(work, chosen.logs.detach().float().cpu().numpy())
            said = self._spoken(text, chosen.states)
            loss = loss + said["written"] + FORM * said["form"] + LOOK_UP * said["number"]
            losses |= {name: value.detach() for name, value in said.items()}
            losses["read"] += text.ids.numel()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        losses["norm"] = norm.detach()
        finite = {k: v if isinstance(v, int) else float(v) for k, v in losses.items()}
        if not all(math.isfinite(value) for value in finite.values()):
            raise InputError(
                f"the loss is not finite at step {self.step}; lower learning_rate "
                f"({self.learning_rate}) and run it again: it goes on from the last "
                "checkpoint, or from the start in another --out"
            )
        return finite

    def _texts(self, work: Work, logs: npt.NDArray[np.float32]) -> Texts:
        rng = np.random.default_rng([self.feed.practice.seed, self.step, 7])
        said = []
        for lesson, rating in zip(
            work.lessons, ratings(work.asked, work.lessons, logs), strict=True
        ):
            own = rng.random() < _OWN
            shown = rating.astype(np.float64)
            if not own:
                shown *= rng.uniform(_LEAST, 1)
                shown += rng.gumbel(size=shown.shape) * rng.uniform(*_NOISE)
            given = None
            if rng.random() < _SWAPPED:
                # As in its own texts, later lines then have to agree with a mistake.
                given = decisions(shown)
                one, two = rng.choice(len(given), 2, replace=False).tolist()
                given[one], given[two] = given[two], given[one]
            said.append(response(self.layout, lesson, shown, given, own=own))
        longest = max(len(text.tokens) for text in said)
        most = max(len(tokens) for text in said for tokens in text.allowed)
        ids = np.full((len(said), longest), self.pad, np.int64)
        targets = np.full((len(said), longest), IGNORED, np.int64)
        weights = np.zeros((len(said), longest), np.float32)
        allowed = np.full((len(said), longest, most), IGNORED, np.int64)
        about = np.full((len(said), longest), -1, np.int64)
        for r, text in enumerate(said):
            length = len(text.tokens)
            ids[r, :length], targets[r, :length] = text.tokens, text.targets
            weights[r, :length] = text.weights
            about[r, :length] = np.array(text.about) - 1
            for k, tokens in enumerate(text.allowed):
                allowed[r, k, : len(tokens)] = tokens
        ends = np.array([len(lesson.prompt) for lesson in work.lessons])
        device = self.model.device
        arrays = (ids, targets, weights, allowed, about, ends)
        return Texts(*(torch.from_numpy(a).to(device) for a in arrays))

    def _spoken(self, text: Texts, read: States) -> dict[str, torch.Tensor]:
        """Return the losses of responses after prompts whose states are given.

        ``written`` is that of the tokens, ``form`` the mean negative log of the probability that a
        type or gene named is on offer and not given before, ``number`` the loss of predicting, as
        for the genes of a list, which cell a name belongs to: it finds the line to repeat.
        """
        rows, length = text.ids.shape
        device = text.ids.device
        place = torch.arange(read.last.shape[1], device=device)
        prompt = (place[None] < text.ends[:, None])[:, None].expand(-1, length, -1)
        # The first token, which opens the think block, is the last one of the prompt.
        own = torch.ones(length - 1, length - 1, dtype=torch.bool, device=device).tril()
        found = hidden_states(
            self.model,
            text.ids[:, 1:],
            sees=torch.cat([prompt[:, 1:], own.expand(rows, -1, -1)], dim=2)[:, None],
            position=text.ends[:, None] + torch.arange(length - 1, device=device),
            early=look_up_layer(self.model),
            behind=[(k[:rows], v[:rows]) for k, v in read.kept],
            dtype=self.dtype,
        )
        assert found.early is not None
        states = found.last
        row = torch.arange(rows, device=device)
        before = [read.last[row, text.ends - 2], read.last[row, text.ends - 1]]
        # Padding is on the right, where no relevant token attends to it.
        states = torch.cat([torch.stack(before, dim=1), states[:, :-1]], dim=1)
        counts = torch.nonzero(text.weights.flatten() > 0).flatten()
        head = self.model.get_output_embeddings().weight.to(self.dtype)
        logits = functional.linear(states.flatten(0, 1).index_select(0, counts), head).float()
        weight = text.weights.flatten()[counts]
        losses = functional.cross_entropy(logits, text.targets.flatten()[counts], reduction="none")
        loss: torch.Tensor = (losses * weight).sum() / weight.sum()
        allowed = text.allowed.flatten(0, 1)[counts]
        theirs = logits.gather(1, allowed.clamp(min=0)).masked_fill(allowed < 0, -torch.inf)
        named = (allowed >= 0).any(dim=-1)
        weight = weight[named]
        lost = torch.logsumexp(logits[named], -1) - torch.logsumexp(theirs[named], -1)
        told = functional.linear(found.early, head[self.numbers]).float()
        number = functional.cross_entropy(
            told.flatten(0, 1), text.about[:, 1:].flatten(), ignore_index=-1
        )
        form: torch.Tensor = (lost * weight).sum() / weight.sum()
        return {"written": loss, "form": form, "number": number}

    def _log(self, losses: dict[str, Any], seconds: float) -> None:
        line = {
            "step": self.step,
            "tokens": self.tokens,
            "stage": self.feed.stage(self.step - 1),
            **{name: round(value, 5) for name, value in losses.items()},
            "learning_rate": self.rate(),
            "seconds": round(seconds, 3),
        }
        append_line(self.out / LOG, line)

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self.model.named_parameters())

    def save(self) -> None:
        """Write weights and optimiser as one file, atomically; nothing is pickled."""
        state = {}
        for name, parameter in self._parameters():
            state[f"weight.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                state[f"{key}.{name}"] = value.detach()
        where = {"step": str(self.step), "tokens": str(self.tokens)}
        write_atomic(self.out / STATE, save(state, metadata=where))

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one; later lines of the log are removed."""
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
                key: state[f"{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }


def _as_it_is(work: Work) -> Work:
    return work
