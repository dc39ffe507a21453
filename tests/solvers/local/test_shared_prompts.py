"""Rows of one prompt read its keys once, and draw the tokens that they would draw alone."""

import pytest

from cello1.solvers.local import generate
from cello1.training.rl.rollout import sample_tokens


def drawn(language, toys, sizes, temperature):
    prompts, seeds = [], []
    for puzzle, size in zip(toys, sizes, strict=False):
        prompts += [language.prompt(puzzle)[0]] * size
    seeds = [(7, i) for i in range(len(prompts))]
    return sample_tokens(language, prompts, seeds, budget=12, temperature=temperature)


@pytest.mark.parametrize("sizes", [(6,), (4, 4, 4), (5, 1, 3)])
def test_tokens_are_those_of_rows_that_share_nothing(language, toys, sizes, monkeypatch):
    shared = drawn(language, toys, sizes, 1.0)
    made = []
    layer = generate._SharedLayer

    def counted(*given):
        made.append(given)
        return layer(*given)

    monkeypatch.setattr(generate, "_SharedLayer", counted)
    assert drawn(language, toys, sizes, 1.0) == shared
    assert made
    monkeypatch.setattr(generate, "_SHARING", ())
    made.clear()
    assert drawn(language, toys, sizes, 1.0) == shared
    assert not made


def test_rows_that_end_leave_and_their_prompts_with_them(language, toys, monkeypatch):
    ends = language.ends

    def run():
        monkeypatch.setattr(language, "ends", [*ends, *range(100, 250)])
        return drawn(language, toys, (4, 4, 4), 1.0)

    shared = run()
    assert len({len(tokens) for tokens in shared}) > 2
    monkeypatch.setattr(generate, "_SHARING", ())
    assert run() == shared


def test_puzzles_that_differ_share_nothing(language, toys):
    prompts = [language.prompt(puzzle)[0] for puzzle in toys[:3]]
    assert not generate._shares_prompts(language.model, prompts)
    assert generate._shares_prompts(language.model, [prompts[0]] * 3)


def test_a_row_draws_alone_what_it_draws_in_a_group(language, toys):
    prompt = language.prompt(toys[0])[0]
    said = sample_tokens(language, [prompt] * 4, [(i,) for i in range(4)], budget=6, temperature=1)
    for i, tokens in enumerate(said):
        assert sample_tokens(language, [prompt], [(i,)], budget=6, temperature=1) == [tokens]
