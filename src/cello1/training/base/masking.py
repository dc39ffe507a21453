"""Add a layer initialised to mask: types that earlier lines have given get less likely.

Each type belongs to one cell, and a small model is slow to learn what follows from it: not to give
a type twice. So it gets an attention layer with closed-form weights, behind all others, like the
heads of large models that suppress copies (McDougall et al. 2023, arXiv:2310.04625). By least
squares on the model's states for some worked puzzles, keys encode the labels that lines have given,
and queries, where a type comes next, what the model would name: if it has been named, attention
finds it, and its value is the direction that lowers the logit of that type and, as far as possible,
no other one's. Training continues from there.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch

from cello1.errors import InputError
from cello1.training.base.copying import (
    append_layer,
    scaled_states,
    slow_dimensions,
    solve,
    solved_layers,
    worked,
)
from cello1.training.base.layout import Layout
from cello1.training.base.practice import Practice

_WORKED = 400  # puzzles to solve on: several of every type
_SHARPNESS = 2.5  # weight of the norms of queries and keys
_CONTENT, _SINK = 2.0, 0.45  # weights of what a state predicts, and of the first token, in a query
_OFF = (-2.0, 2.0, -1.0)  # marks of a query where no type comes next
_FIRM = 5.0  # scale of queries and keys before they are normalised
_OUTPUT = 0.03  # root mean square of the weights of the output
_DROP = 12.0  # of the logit of a type that has been given
_OTHERS = 0.02  # weight of the logits of all tokens but types: they should stay as they are
_ELSEWHERE = 0.002  # weight of tokens that no query should attend to, of which there are many
_MARKED = 30.0  # weight of the tokens that queries and keys mark, of which there are few
_RIDGE, _RIDGE_VALUES = 1e-3, 3.0


class _Seen(NamedTuple):
    """Tokens of one worked puzzle."""

    states: torch.Tensor
    spread: torch.Tensor  # root mean square of each state before it is scaled
    given: list[int]  # position among all types where a label has been given; else -1
    asks: list[bool]  # whether a type comes next


def add_masking(model: Any, layout: Layout, practice: Practice) -> Any:
    """Return the model with an additional layer.

    Parameters
    ----------
    model
        A model of `cello1 base`. If it has a masking layer, its attention is solved for again.
    layout, practice
        How puzzles are tokenized, and where they come from.

    Raises
    ------
    InputError
        When the heads are too small for the marks of queries and keys.
    """
    config = model.config
    size, heads = config.head_dim, config.num_attention_heads
    if size < 16:
        raise InputError(f"a masking layer needs heads of 16 dimensions or more, not {size}")
    model = copy.deepcopy(model)
    layer = copy.deepcopy(model.model.layers[-1])
    if hasattr(config, "solved_layers"):
        _drop_last(model)
    else:
        layer.mlp.down_proj.weight.data.zero_()
        layer.post_attention_layernorm.weight.data.fill_(1.0)
    types = [layout.spell(label, "", True, 0)[0] for label in sorted(layout.types)]
    place = {token: k for k, token in enumerate(types)}
    seen = [_read(model, layout, practice, place, i) for i in range(_WORKED)]
    states = torch.cat([s.states for s in seen])
    spread = torch.cat([s.spread for s in seen])
    given = torch.tensor([d for s in seen for d in s.given])
    asks = torch.tensor([a for s in seen for a in s.asks])
    first = torch.cat([torch.arange(len(s.states)) == 0 for s in seen])
    said = given >= 0

    own = layer.self_attn
    for part in (own.q_proj, own.k_proj, own.v_proj, own.o_proj):
        part.weight.data.zero_()
    layer.input_layernorm.weight.data.fill_(1.0)
    for norm in (own.q_norm, own.k_norm):
        norm.weight.data.fill_(_SHARPNESS)

    # Keys: marks of labels given, of the first token and of any other one, and the content of
    # the label. Queries compare it with what the state predicts, so that the type that would be
    # named is found if it has been named; else they attend to the first token. All of it stands in
    # the dimensions of slow rotation, where queries and keys match at any distance.
    slow = slow_dimensions(size)
    reads = model.model.norm.weight.detach()
    table = model.get_output_embeddings().weight.detach()[types] * reads
    table = table - table.mean(dim=0)
    basis = torch.linalg.svd(table, full_matrices=False).Vh[: len(slow) - 3].T
    slow = slow[: 3 + basis.shape[1]]
    content = table @ basis
    content = content / content.norm(dim=1, keepdim=True)
    key = torch.zeros(len(states), len(slow))
    key[:, :3] = torch.stack([said, first, ~said & ~first], dim=1).float()
    key[said, 3:] = content[given[said]]
    belief = basis / (states[asks] @ basis).norm(dim=1).mean()
    query = torch.where(asks[:, None], torch.tensor([0.0, _SINK, -1.0]), torch.tensor(_OFF))
    weight = torch.where(asks | said | first, _MARKED, 1.0)
    asking, telling = solve(states, query, weight), solve(states, key, weight)
    asking = torch.cat([asking, _CONTENT * belief], dim=1)

    direction, codes = _directions(model, types, heads * size)
    named = torch.where(said[:, None], codes[given], 0.0)
    values = solve(states, named, torch.where(said | first, 1.0, _ELSEWHERE), _RIDGE_VALUES)
    scale = _DROP * float(spread[asks].mean())
    # A step of training is as large for every weight. So outputs are as large as in other layers,
    # and the rest is larger: values of the first token stay near zero, and attention is firm.
    gain = float(scale * direction.square().mean().sqrt()) / _OUTPUT
    for head in range(heads):
        rows, marks = slice(head * size, (head + 1) * size), [head * size + k for k in slow]
        own.q_proj.weight.data[marks] = _FIRM * asking.T
        own.k_proj.weight.data[marks] = _FIRM * telling.T
        own.v_proj.weight.data[rows] = gain * values[:, rows].T
        own.o_proj.weight.data[:, rows] = -scale / gain * direction[:, rows]
    append_layer(model, layer)
    model.config.solved_layers = len(solved_layers(model)) + 1
    return model


def _drop_last(model: Any) -> None:
    del model.model.layers[-1]
    model.config.num_hidden_layers -= 1
    model.config.layer_types = model.config.layer_types[:-1]
    del model.config.solved_layers


def _directions(model: Any, types: list[int], room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions that raise the logit of one type each, as a basis and codes in it.

    Shapes (width, room) and (types, room).
    """
    table = model.get_output_embeddings().weight.detach().double()
    table = table * model.model.norm.weight.detach().double()
    weight = torch.full((len(table), 1), _OTHERS, dtype=torch.float64)
    weight[types] = 1.0
    square = table.T @ (weight * table)
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=torch.float64)
    directions = torch.linalg.solve(square, table[types].T)  # shape (width, types)
    own = (table[types] * directions.T).sum(dim=1)
    basis, values, codes = torch.linalg.svd(directions / own, full_matrices=False)
    kept = min(room, len(values))
    wide = torch.zeros(len(basis), room, dtype=torch.float64)
    wide[:, :kept] = basis[:, :kept] * values[:kept]
    code = torch.zeros(codes.shape[1], room, dtype=torch.float64)
    code[:, :kept] = codes[:kept].T
    return wide.float(), code.float()


def _read(model: Any, layout: Layout, practice: Practice, place: dict[int, int], i: int) -> _Seen:
    """Run the model on a worked puzzle."""
    lesson, text = worked(layout, practice, i)
    ids = lesson.prompt + text.tokens[1:]  # the prompt ends in the first token of the response
    states, spread = scaled_states(model, torch.tensor([ids]))
    given, asks = [-1] * len(ids), [False] * len(ids)
    start, verb = len(lesson.prompt) - 1, layout.cell(1, " is")[1]
    for k, token in enumerate(text.tokens):
        if token == verb:
            asks[start + k + 1] = True  # the blank behind it, where types are rated
            given[start + k + 2] = place.get(text.tokens[k + 2], -1)
    return _Seen(states, spread, given, asks)
