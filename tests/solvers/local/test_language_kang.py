"""One model, 200 puzzles of real cells, every way of asking it: Kang 2018, 8 donors."""

from dataclasses import replace

import pytest
import torch
from tiny import make_model, make_tokenizer, one_by_one

import cello1
from cello1.puzzles.answer import parse_response
from cello1.puzzles.prompt import user_message
from cello1.recipes import BuildSettings
from cello1.scoring.score import score
from cello1.solvers.endpoint.solver import EndpointSolver
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.likelihood import LikelihoodSolver
from cello1.solvers.run import read_solved, solve
from cello1.solvers.vote import VotingSolver

TOKENS = 160  # eight labels and a few words before them


@pytest.fixture(scope="module")
def kang(cells_dir, tmp_path_factory):
    """200 puzzles of 8 cells in a file."""
    folder = tmp_path_factory.mktemp("kang")
    file = cells_dir / "kang2018_muscat_1287genes.h5ad"
    cello1.build([file], folder / "built", BuildSettings(split="none", n_max=8, per_n=200))
    path = folder / "puzzles.parquet"
    cello1.write_puzzles(cello1.read_puzzles(folder / "built" / "all.parquet")[:200], path)
    return path


@pytest.fixture(scope="module")
def model(kang, tmp_path_factory):
    """A folder with a tiny random model that knows the words of these puzzles."""
    words = make_tokenizer([user_message(p) for p in cello1.read_puzzles(kang)], vocab=2_500)
    return make_model(tmp_path_factory.mktemp("model") / "tiny", words)


@pytest.fixture(scope="module")
def kang_language(model):
    return LanguageModel(model)


def solved(solver, kang, folder):
    """Solve them all into a run and read it back."""
    puzzles, records = read_solved(solve(kang, solver, folder / "run"))
    assert len(records) == len(puzzles) >= 40
    return puzzles, records


def all_valid(puzzles, records):
    scores = [score(p, records[p.id]["text"]) for p in puzzles]
    return all(s.format_valid and s.complete and s.uniqueness == 1.0 for s in scores)


def test_guided_answers_are_all_valid_and_unique(kang, kang_language, tmp_path):
    solver = LanguageSolver(kang_language, valid=True, max_new_tokens=TOKENS)
    puzzles, records = solved(solver, kang, tmp_path)
    assert all_valid(puzzles, records)
    assert all(r["completion_tokens"] <= TOKENS for r in records.values())


def test_likelihood_assigns_them_all(kang, kang_language, tmp_path):
    puzzles, records = solved(LikelihoodSolver(kang_language), kang, tmp_path)
    assert all_valid(puzzles, records)
    for record in records.values():
        shares = torch.tensor(record["probabilities"])
        assert torch.allclose(shares.sum(0), torch.ones(8), atol=1e-4)
        assert torch.allclose(shares.sum(1), torch.ones(8), atol=1e-4)


def test_eight_guided_samples_vote(kang, kang_language, tmp_path):
    def sampler(k):
        return LanguageSolver(
            kang_language, valid=True, temperature=1.0, sample=k, max_new_tokens=TOKENS
        )

    some = tmp_path / "some.parquet"  # all 200 take minutes
    cello1.write_puzzles(cello1.read_puzzles(kang)[:40], some)
    puzzles, records = solved(VotingSolver(sampler, 8, permute=True), some, tmp_path)
    assert all_valid(puzzles, records)
    assert all(1 / 8 <= r["agreement"] <= 1 for r in records.values())


def test_a_server_says_what_the_batch_says_and_both_what_one_at_a_time_says(
    kang, model, kang_language, serve, tmp_path, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    n = 16
    puzzles, batched = solved(LanguageSolver(kang_language, max_new_tokens=n), kang, tmp_path)
    remote = EndpointSolver(str(model), base_url=serve(model), max_new_tokens=n, in_flight=4)
    _, served = solved(remote, kang, tmp_path / "remote")
    for puzzle in puzzles:
        text = one_by_one(kang_language, puzzle, n)
        assert batched[puzzle.id]["text"] == text
        assert served[puzzle.id]["text"] == text.strip()  # the server trims blanks


def test_published_rows_work_with_and_without_their_answers_and_with_more_types(
    shared, kang_language, tmp_path
):
    published = cello1.read_puzzles(shared / "data" / "cellpuzzles_rows.jsonl")
    asked = [replace(p, answer=None) for p in published]
    more = [replace(p, candidates=(*p.candidates, "type from elsewhere")) for p in published]
    for name, puzzles in {"published": published, "asked": asked, "more": more}.items():
        path = tmp_path / f"{name}.parquet"
        cello1.write_puzzles(puzzles, path)
        guided = LanguageSolver(kang_language, valid=True, max_new_tokens=600)
        for kind, solver in {"valid": guided, "assign": LikelihoodSolver(kang_language)}.items():
            _, records = read_solved(solve(path, solver, tmp_path / f"{name}-{kind}"))
            assert len(records) == 3
            for puzzle in puzzles:
                labels = parse_response(records[puzzle.id]["text"]).labels
                assert len(set(labels)) == len(labels) == len(puzzle.cells)
                assert set(labels) <= set(puzzle.candidates)
