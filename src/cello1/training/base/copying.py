"""Add a layer initialised to copy: the next token is looked up in the prompt.

A model that only rates the given candidates need not know which candidates are given. To write
freely it has to, and a small model is slow to learn the look-up: a label among the candidates, a
gene in the list of its cell. So the model is widened by a few dimensions that hold the identity of
each token and that no other layer uses, and gets an attention layer with closed-form weights: by
least squares on the model's states for some worked puzzles, queries encode the kind of token that
comes next, keys the kind of each token of the prompt, and values its identity. Training continues
from there.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Qwen3ForCausalLM

from cello1.errors import InputError
from cello1.training.base.layout import GENE, TYPE, Layout, Lesson, Text, response
from cello1.training.base.practice import Practice, Size
from cello1.training.base.simulated import unclear
from cello1.training.base.tokens import MOST_CELLS, START

_WORKED, _FAR_STEP = 120, 1 << 29  # puzzles to solve on; far from any step of training
_SIZE = ((3, 9), (15, 50), 3)  # cells, genes, distractors
_MARKS = 3  # dimensions that separate copied tokens from the first token and from all others
_LABEL, _LISTED, _ELSE = 0, 1, 2
_SHARPNESS = 0.9  # weight of the norms of queries and keys
_CONTENT = 0.1  # weight of content: tokens that the model itself predicts get more attention
_GAIN = 30.0  # scale of the copied identity
_RIDGE = 3.0


class _Seen(NamedTuple):
    """Tokens of one worked puzzle: states, the kind of each, and the kind of the next."""

    states: torch.Tensor
    ids: list[int]
    kinds: list[int]
    cells: list[int]
    next_kinds: list[int]  # -1 where nothing follows
    next_cells: list[int]


def add_copying(model: Any, layout: Layout, practice: Practice) -> Any:
    """Return a wider model with an additional layer.

    Parameters
    ----------
    model
        A model of `cello1 base`.
    layout, practice
        How puzzles are tokenized, and where they come from.

    Raises
    ------
    InputError
        When the model has too few heads, or they are too small.
    """
    wider = _widened(model, layout)
    old = model.config.hidden_size
    size, heads = wider.config.head_dim, wider.config.num_attention_heads
    slow = slow_dimensions(size)
    number = len(slow) // 4  # dimensions that identify the cell
    told = len(slow) - number - _MARKS
    if heads < 2 or told < 1:
        raise InputError(
            f"a copyist needs two heads or more of 16 dimensions or more, not {heads} of {size}"
        )
    seen = [_read(wider, layout, practice, i) for i in range(_WORKED)]
    layer = copy.deepcopy(wider.model.layers[-1])
    own = layer.self_attn
    for part in (own.q_proj, own.k_proj, own.v_proj, own.o_proj, layer.mlp.down_proj):
        part.weight.data.zero_()
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        norm.weight.data.fill_(1.0)
    for norm in (own.q_norm, own.k_norm):
        norm.weight.data.fill_(_SHARPNESS)
    states = torch.cat([s.states for s in seen])
    ids = torch.tensor([t for s in seen for t in s.ids])
    kinds = torch.tensor([k for s in seen for k in s.kinds])
    cells = torch.tensor([c for s in seen for c in s.cells])
    wanted = torch.tensor([k for s in seen for k in s.next_kinds])
    about = torch.tensor([c for s in seen for c in s.next_cells])
    asks, start = wanted >= 0, ids[0]
    embedded = wider.get_input_embeddings().weight.detach()[:, :old]
    rng = torch.Generator().manual_seed(0)
    codes = torch.randn(MOST_CELLS + 1, number, generator=rng)
    codes /= codes.norm(dim=1, keepdim=True)
    reads = wider.model.norm.weight.detach()[:old, None]
    for head in range(heads):
        kind = _LABEL if head < heads // 2 else _LISTED
        theirs, mine = kinds == kind, wanted == kind
        known = embedded[torch.unique(ids[theirs])]
        part = head % (heads // 2) * told  # each head compares other dimensions
        basis = torch.linalg.svd(known - known.mean(dim=0), full_matrices=False).Vh
        basis = basis[part : part + told].T
        content = (embedded[ids] - known.mean(dim=0)) @ basis
        content *= _CONTENT / content[theirs].norm(dim=1).mean()
        key = torch.zeros(len(ids), len(slow))
        key[theirs, :told] = content[theirs]
        key[:, told + number] = theirs.float()
        key[:, told + number + 1] = (ids == start).float()  # attended to when nothing is copied
        key[:, told + number + 2] = (~theirs & (ids != start)).float()
        query = torch.zeros(len(ids), len(slow))
        query[:, told + number] = mine.float()
        query[:, told + number + 1] = (~mine).float()
        if kind == _LISTED:
            key[theirs, told : told + number] = codes[cells[theirs]]
            query[mine, told : told + number] = codes[about[mine]]
        asking, telling = solve(states[asks], query[asks]), solve(states, key)
        # Candidates for copying are compared with the token that the state predicts.
        belief = reads * basis
        spread = (states[mine][:, :old] @ belief).norm(dim=1).mean()
        asking[:old, :told] = _CONTENT * belief / spread
        rows = [head * size + row for row in slow]
        own.q_proj.weight.data[rows] = asking.T
        own.k_proj.weight.data[rows] = telling.T
        carried = states[theirs][:, old:].norm(dim=1).mean()
        for k in range(size):
            own.v_proj.weight.data[head * size + k, old + k] = float(_GAIN / carried)
            own.o_proj.weight.data[old + k, head * size + k] = 1.0
    append_layer(wider, layer)
    return wider


def slow_dimensions(size: int) -> list[int]:
    """Return the dimensions of a head that rotate slowly.

    Only in these do queries and keys match at any distance.
    """
    return [*range(size // 4, size // 2), *range(3 * size // 4, size)]


def append_layer(model: Any, layer: Any) -> None:
    """Put a layer behind all others."""
    layer.self_attn.layer_idx = len(model.model.layers)
    model.model.layers.append(layer)
    model.config.num_hidden_layers += 1
    model.config.layer_types = [*model.config.layer_types, model.config.layer_types[-1]]


def solved_layers(model: Any) -> tuple[str, ...]:
    """Return the beginnings of the names of weights in layers with closed-form weights."""
    count = getattr(model.config, "solved_layers", int(hasattr(model.config, "identity_size")))
    last = len(model.model.layers)
    return tuple(f"model.layers.{k}." for k in range(last - count, last))


def keep_identity(model: Any) -> None:
    """Stop gradients to the identity dimensions, except in layers with closed-form weights.

    The copying layer amplifies these dimensions, and so any noise in them.
    """
    old = model.config.hidden_size - getattr(model.config, "identity_size", 0)
    if old == model.config.hidden_size:
        return

    def without_rows(gradient: torch.Tensor) -> torch.Tensor:
        return torch.cat([gradient[:old], torch.zeros_like(gradient[old:])])

    def without_columns(gradient: torch.Tensor) -> torch.Tensor:
        return torch.cat([gradient[:, :old], torch.zeros_like(gradient[:, old:])], dim=1)

    model.get_input_embeddings().weight.register_hook(without_columns)
    for layer in model.model.layers[: len(model.model.layers) - len(solved_layers(model))]:
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            part.weight.register_hook(without_rows)


def _widened(model: Any, layout: Layout) -> Any:
    """Return the same model with identity dimensions, which no layer reads yet."""
    config = copy.deepcopy(model.config)
    old = config.hidden_size
    config.identity_size = config.head_dim  # as much as a head can copy
    config.hidden_size = old + config.identity_size
    wider: Any = Qwen3ForCausalLM(config)
    weights, narrow = dict(wider.named_parameters()), dict(model.named_parameters())
    # A norm now averages over more dimensions, whose values are mostly small.
    scale = (old / config.hidden_size) ** 0.5
    for name, parameter in weights.items():
        given = narrow[name].detach()
        parameter.data.zero_()
        parameter.data[tuple(slice(0, n) for n in given.shape)] = given
        if parameter.ndim == 1 and parameter.shape != given.shape:
            parameter.data *= scale
            parameter.data[old:] = parameter.data[:old].mean()
    table = weights["model.embed_tokens.weight"].data
    table[torch.arange(len(table)), old + _shared_out(table[:, :old], layout, config.head_dim)] = (
        1.0
    )
    table[layout.encode(START), old:] = 0.0
    # At the input the identity has the same norm as the other dimensions.
    first = table[:, :old].norm(dim=1)
    first = first[first > 0]
    weights["model.layers.0.input_layernorm.weight"].data[:old] *= float(
        ((first.square() + 1) / first.square()).sqrt().median()
    )
    return wider


def _shared_out(table: torch.Tensor, layout: Layout, count: int) -> torch.Tensor:
    """Assign each token one of `count` dimensions, so that similar types never share one.

    A word has the same dimension with and without a leading blank.
    """
    tokenizer = layout.tokenizer
    names = [str(tokenizer.decode([t])).strip(" ") for t in range(len(table))]
    known: dict[str, int] = {}
    place = torch.zeros(len(table), dtype=torch.long)
    for token, name in enumerate(names):
        place[token] = known.setdefault(name, len(known) % count)
    types = [layout.spell(label, "", True, 0)[0] for label in sorted(layout.types)]
    direction = torch.nn.functional.normalize(table[types], dim=1)
    alike = direction @ direction.T
    most = -(-len(types) // count)
    mates: list[list[int]] = [[] for _ in range(count)]
    for i, token in enumerate(types):
        open_ = [k for k in range(count) if len(mates[k]) < most]
        near = [max((float(alike[i, j]) for j in mates[k]), default=-2.0) for k in open_]
        best = open_[int(np.argmin(near))]
        mates[best].append(i)
        place[token] = best
    return place


def worked(layout: Layout, practice: Practice, i: int) -> tuple[Lesson, Text]:
    """Return puzzle `i` of those that weights are solved on, with a response."""
    rng = np.random.default_rng([practice.seed, _FAR_STEP, i])
    (low, high), (few, many), distractors = _SIZE
    size = Size(int(rng.integers(low, high)), int(rng.integers(few, many)), distractors)
    draft = practice.draw(_FAR_STEP, i, size)
    lesson = layout.lesson(draft, rng, cite=True)
    rating, _ = unclear(draft, layout.alike, rng)
    return lesson, response(layout, lesson, rating)


def _read(model: Any, layout: Layout, practice: Practice, i: int) -> _Seen:
    """Run the model on a worked puzzle."""
    lesson, text = worked(layout, practice, i)
    said, weights = text.tokens, text.weights
    ids = lesson.prompt + said[1:]  # the prompt ends in the first token of the response
    kinds, cells = _kinds(layout, lesson, len(ids))
    start = len(lesson.prompt) - 2
    next_kinds, next_cells = [-1] * len(ids), [0] * len(ids)
    number = {layout.cell(k, "")[0]: k for k in range(1, MOST_CELLS + 1)}
    about, blank = 0, layout.encode(" ")[0]
    for k, (token, weight) in enumerate(zip(said, weights, strict=True)):
        about = number.get(token, about)
        kind = _LABEL if weight == TYPE and k else _LISTED if weight == GENE else _ELSE
        if token == blank:
            kind = _ELSE
        next_kinds[start + k], next_cells[start + k] = kind, about
    states, _ = scaled_states(model, torch.tensor([ids]))
    return _Seen(states, ids, kinds, cells, next_kinds, next_cells)


def scaled_states(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states as one more layer reads them, normalised without the norm's weights.

    Shapes (length, width) and (length,), the latter their root mean square before.
    """
    raw: list[torch.Tensor] = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, given: raw.append(given[0]))
    with torch.no_grad():
        model.model(input_ids=ids, use_cache=False)
    hook.remove()
    size = raw[0][0].square().mean(dim=-1).sqrt()
    return raw[0][0] / size[:, None], size


def _kinds(layout: Layout, lesson: Lesson, length: int) -> tuple[list[int], list[int]]:
    """Return for every token whether it is of a candidate or of a cell's list, and which cell."""
    kinds, cells = [_ELSE] * length, [0] * length
    for i, (start, end) in enumerate(lesson.cells, 1):
        kinds[start:end] = [_LISTED] * (end - start)
        cells[start:end] = [i] * (end - start)
    place = lesson.cells[-1][1] + len(layout.question)
    for label in lesson.bare:
        kinds[place : place + len(label)] = [_LABEL] * len(label)
        place += len(label) + len(layout.newline)
    return kinds, cells


def solve(
    states: torch.Tensor,
    wanted: torch.Tensor,
    weight: torch.Tensor | None = None,
    ridge: float = _RIDGE,
) -> torch.Tensor:
    """Return the matrix that maps states to targets, by least squares."""
    states, wanted = states.double(), wanted.double()
    heavy = states if weight is None else states * weight.double()[:, None]
    square = heavy.T @ states + ridge * torch.eye(states.shape[1], dtype=torch.float64)
    solved: torch.Tensor = torch.linalg.solve(square, heavy.T @ wanted)
    return solved.float()
