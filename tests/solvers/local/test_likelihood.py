from dataclasses import replace

import numpy as np
import pytest
import torch

from cello1.scoring.score import score
from cello1.solvers.base import Failure
from cello1.solvers.local import likelihood as room
from cello1.solvers.local.likelihood import LikelihoodSolver


@torch.inference_mode()
def naive(language, puzzle):
    """One whole forward pass for every cell and candidate."""
    encode = language.vocabulary.encode
    prompt = language.prompt(puzzle)[0] + encode("<think>")
    table = np.zeros((len(puzzle.cells), len(puzzle.candidates)))
    for i in range(len(puzzle.cells)):
        for j, label in enumerate(puzzle.candidates):
            start, tail = prompt + encode(f"Cell {i + 1} is"), encode(f" {label}")
            logits = language.model(torch.tensor([start + tail])).logits[0]
            logs = torch.log_softmax(logits.float(), -1)
            table[i, j] = np.mean([logs[len(start) - 1 + k, t].item() for k, t in enumerate(tail)])
    return table


@pytest.mark.parametrize("pass_tokens", [10_000, 30, 1])
def test_one_pass_gives_what_a_pass_per_pair_gives(language, toys, monkeypatch, pass_tokens):
    monkeypatch.setattr(room, "_PASS_TOKENS", pass_tokens)
    solver = LikelihoodSolver(language)
    for puzzle in toys[:3]:
        np.testing.assert_allclose(solver.likelihoods(puzzle), naive(language, puzzle), atol=1e-4)


def test_scores_are_corrected_by_what_silent_cells_would_get(language, toys):
    solver = LikelihoodSolver(language)
    silent = replace(toys[0], cells=(("N/A",),) * 4)
    expected = solver.likelihoods(toys[0]) - solver.likelihoods(silent)
    np.testing.assert_allclose(solver.scores(toys[0]), expected)
    np.testing.assert_allclose(solver.scores(silent), 0, atol=1e-6)


def test_distractors_and_missing_answers_are_no_obstacle(language, toys, answers):
    more = replace(toys[0], candidates=(*toys[0].candidates, "hepatocyte"))
    blind = replace(toys[1], answer=None)
    results = answers(LikelihoodSolver(language), [more, blind])
    assert results[more.id].scores.shape == (4, 5)
    assert score(more, results[more.id].text).uniqueness == 1.0
    np.testing.assert_allclose(results[blind.id].probabilities.sum(axis=1), 1)


def test_answers_are_valid_and_repeatable_and_long_prompts_refused(
    language, toys, answers, monkeypatch
):
    first = answers(LikelihoodSolver(language), toys[:6])
    again = answers(LikelihoodSolver(language), toys[:6][::-1])
    assert {i: r.text for i, r in first.items()} == {i: r.text for i, r in again.items()}
    assert all(score(p, first[p.id].text).reason == "" for p in toys[:6])
    monkeypatch.setattr(language, "context", 10)
    assert isinstance(answers(LikelihoodSolver(language), toys[:1])[toys[0].id], Failure)
