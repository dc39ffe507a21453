"""A layer that begins by masking: what lines have decided for gets less of the probability."""

import numpy as np
import pytest
import torch
from test_copying import model_of
from test_layout import rated

from cello1.errors import InputError
from cello1.training.base import copying, masking
from cello1.training.base.copying import add_copying, keep_identity, solved_layers
from cello1.training.base.layout import response
from cello1.training.base.masking import add_masking
from cello1.training.base.practice import Size


def change(before, after, layout, practice, steps):
    """Return how the likeliest type that is gone changes, against all that are left."""
    changes = []
    for i in steps:
        draft = practice.draw(9, i, Size(4, 20, 0, plain=True))
        lesson = layout.lesson(draft, np.random.default_rng(0), cite=True)
        n = len(lesson.gold)
        text = response(layout, lesson, rated(lesson), [lesson.gold[(k + 1) % n] for k in range(n)])
        ids = torch.tensor([lesson.prompt + text.tokens[1:]])
        with torch.no_grad():
            was, now = (m(ids).logits[0] for m in (before, after))
        gone = []
        stated = [k + 1 for k, t in enumerate(text.tokens) if t == layout.cell(1, " is")[1]]
        for place in stated:
            here = len(lesson.prompt) - 1 + place  # the blank before a label
            left = [label[1] for label in lesson.labels if label[1] not in gone]
            if gone:
                top = max(gone, key=lambda t: float(was[here, t]))
                shift = now[here] - was[here]
                changes.append(float(shift[top] - shift[left].mean()))
            gone.append(text.tokens[place + 1])
    return np.mean(changes)


def test_a_type_decided_for_is_less_likely_at_once(practice, layout, monkeypatch):
    monkeypatch.setattr(copying, "_WORKED", 20)
    monkeypatch.setattr(masking, "_WORKED", 80)
    # The states of a narrower one do not tell types that are given from types that are weighed.
    model = add_copying(model_of(layout, hidden=192), layout, practice)
    masked = add_masking(model, layout, practice)
    assert masked.config.num_hidden_layers == model.config.num_hidden_layers + 1
    assert change(model, masked, layout, practice, range(20)) < -1


def test_a_masking_layer_is_replaced_and_stays_the_last(practice, layout, monkeypatch):
    monkeypatch.setattr(copying, "_WORKED", 20)
    monkeypatch.setattr(masking, "_WORKED", 20)
    model = add_copying(model_of(layout), layout, practice)
    masked = add_masking(model, layout, practice)
    assert len(solved_layers(masked)) == len(solved_layers(model)) + 1 == 2
    again = add_masking(masked, layout, practice)
    assert again.config.num_hidden_layers == masked.config.num_hidden_layers
    mine, theirs = (m.model.layers[-1].self_attn.v_proj.weight for m in (again, masked))
    assert torch.equal(mine, theirs)


def test_both_layers_with_closed_form_weights_may_change_who_a_token_is(
    practice, layout, monkeypatch
):
    monkeypatch.setattr(copying, "_WORKED", 4)
    monkeypatch.setattr(masking, "_WORKED", 4)
    model = add_masking(add_copying(model_of(layout), layout, practice), layout, practice)
    keep_identity(model)
    old = model.config.hidden_size - model.config.identity_size
    ids = torch.tensor([layout.encode("Cell 1 is B cell: MS4A1, among others.")])
    model(ids).logits.square().sum().backward()
    changed = [
        float(layer.self_attn.o_proj.weight.grad[old:].abs().sum()) > 0
        for layer in model.model.layers
    ]
    assert changed == [False, False, True, True]


def test_heads_too_small_are_refused(practice, layout):
    with pytest.raises(InputError, match="16 dimensions or more, not 8"):
        add_masking(model_of(layout, hidden=32, heads=4), layout, practice)
