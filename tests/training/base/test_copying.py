"""A layer that begins as a copyist: what is on offer gets more of the probability at once."""

import numpy as np
import pytest
import torch

from cello1.errors import InputError
from cello1.training.base import copying
from cello1.training.base.copying import add_copying, keep_identity
from cello1.training.base.forward import hidden_states
from cello1.training.base.layout import questions
from cello1.training.base.practice import Size
from cello1.training.base.pretrain import choose, new_model, start_from


def model_of(layout, **more):
    sizes = {"hidden": 64, "layers": 2, "heads": 2, **more}
    model = new_model(layout.tokenizer, context=512, seed=0, **sizes)
    start_from(model, layout, 0.5)
    return model


def test_what_is_on_offer_is_likelier_at_once(practice, layout, monkeypatch):
    monkeypatch.setattr(copying, "_WORKED", 20)
    model = model_of(layout)
    wider = add_copying(model, layout, practice)
    width = model.config.hidden_size
    table = wider.get_input_embeddings().weight
    assert torch.equal(table[:, :width], model.get_input_embeddings().weight)
    assert wider.config.num_hidden_layers == model.config.num_hidden_layers + 1
    drafts = [practice.draw(5, i, Size(3, 20, 1, plain=True)) for i in range(12)]
    lessons = [layout.lesson(draft, np.random.default_rng(0), False) for draft in drafts]
    asked = questions(layout, lessons, layout.tokenizer.pad_token_id)
    numbers = torch.tensor([layout.cell(i, "")[0] for i in range(1, 33)])
    with torch.no_grad():
        before, after = (choose(m, asked, numbers) for m in (model, wider))
        assert float(after.offered) < float(before.offered) - 0.3


def test_who_a_token_is_stays_as_it_is(practice, layout, monkeypatch):
    monkeypatch.setattr(copying, "_WORKED", 4)
    wider = add_copying(model_of(layout), layout, practice)
    keep_identity(wider)
    old = wider.config.hidden_size - wider.config.identity_size
    ids = torch.tensor([layout.encode("Cell 1 is B cell: MS4A1, among others.")])
    hidden_states(wider, ids).last.square().sum().backward()
    gradient = wider.get_input_embeddings().weight.grad
    assert gradient[:, :old].abs().sum() > 0
    assert gradient[:, old:].abs().sum() == 0
    for layer in wider.model.layers[:-1]:
        assert layer.mlp.down_proj.weight.grad[old:].abs().sum() == 0
        assert layer.self_attn.o_proj.weight.grad[old:].abs().sum() == 0


def test_heads_too_small_are_refused(practice, layout):
    with pytest.raises(InputError, match="16 dimensions or more, not 4 of 8"):
        add_copying(model_of(layout, hidden=32, heads=4), layout, practice)
