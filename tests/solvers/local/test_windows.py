"""Models that look back only so far (Gemma 3, Mistral) give what plain passes over them give."""

import numpy as np
import pytest
import torch
from tiny import ALTERNATING, WINDOW, make_tokenizer, make_windowed

from cello1.puzzles.prompt import user_message
from cello1.scoring.score import score
from cello1.solvers.local import likelihood as room
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.likelihood import LikelihoodSolver
from cello1.solvers.vote import VotingSolver


@pytest.fixture(scope="module", params=["gemma3", "mistral"])
def windowed(request, tmp_path_factory, toy):
    texts = [user_message(toy(seed, "d")) for seed in range(60)]
    tokenizer = make_tokenizer(texts, template=ALTERNATING)
    folder = tmp_path_factory.mktemp("windows") / request.param
    return LanguageModel(make_windowed(folder, tokenizer, request.param))


@torch.inference_mode()
def whole_pass(language, tokens):
    """Return logits of a pass without any cache."""
    return language.model(torch.tensor([tokens]), use_cache=False).logits[0].float()


@pytest.mark.parametrize("rows", [64, 5])
def test_likelihoods_are_those_of_a_whole_pass_for_every_pair(windowed, toys, monkeypatch, rows):
    monkeypatch.setattr(room, "_MOST_ROWS", rows)
    encode, puzzle = windowed.vocabulary.encode, toys[0]
    prompt = windowed.prompt(puzzle)[0] + encode("<think>")
    assert len(prompt) > 2 * WINDOW
    expected = np.zeros((len(puzzle.cells), len(puzzle.candidates)))
    for i in range(len(puzzle.cells)):
        for j, label in enumerate(puzzle.candidates):
            start, tail = prompt + encode(f"Cell {i + 1} is"), encode(f" {label}")
            logs = torch.log_softmax(whole_pass(windowed, start + tail), -1)
            expected[i, j] = np.mean([logs[len(start) - 1 + k, t] for k, t in enumerate(tail)])
    found = LikelihoodSolver(windowed).likelihoods(puzzle)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_greedy_answers_are_those_of_whole_passes(windowed, toys, answers):
    results = answers(LanguageSolver(windowed, max_new_tokens=WINDOW + 12), toys[:4])
    for puzzle in toys[:2]:
        tokens, written = windowed.prompt(puzzle)[0], []
        while len(written) < WINDOW + 12:
            token = int(whole_pass(windowed, tokens + written)[-1].argmax())
            if token in windowed.ends:
                break
            written.append(token)
            if "</answer>" in windowed.vocabulary.text(written):
                break
        assert results[puzzle.id].text == windowed.vocabulary.text(written)


def test_valid_assigned_and_voted_answers_are_answers(windowed, toys, answers):
    def valid(k):
        return LanguageSolver(windowed, valid=True, temperature=1.0, sample=k, max_new_tokens=60)

    for solver in (valid(0), LikelihoodSolver(windowed), VotingSolver(valid, 2, permute=True)):
        results = answers(solver, toys[:3])
        assert {p.id: score(p, results[p.id].text).reason for p in toys[:3]} == {
            p.id: "" for p in toys[:3]
        }, solver.name
