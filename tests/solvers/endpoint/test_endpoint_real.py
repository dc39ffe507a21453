import pytest

from cello1.puzzles.table import write_puzzles
from cello1.runs import read_records
from cello1.solvers.base import Failure
from cello1.solvers.endpoint.solver import EndpointSolver
from cello1.solvers.local.language import LanguageSolver
from cello1.solvers.run import read_solved, solve, token_counts

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

TOKENS = 20


def test_a_served_model_answers_as_it_does_at_home_and_runs_resume(
    serve, tiny_model, language, toys, answers, tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = serve(tiny_model)
    write_puzzles(toys[:20], tmp_path / "puzzles.parquet")

    def solver(model=str(tiny_model)):
        return EndpointSolver(model, base_url=served, max_new_tokens=TOKENS, in_flight=4, retries=1)

    class KilledError(Exception):
        pass

    def kill_after_seven(done, total):
        if done == 7:
            raise KilledError

    with pytest.raises(KilledError):
        solve(tmp_path / "puzzles.parquet", solver(), tmp_path / "run", watch=kill_after_seven)
    assert len(list(read_records(tmp_path / "run"))) == 7
    asked = solver()
    run = solve(tmp_path / "puzzles.parquet", asked, tmp_path / "run")
    assert asked.refused == set()
    puzzles, records = read_solved(run)
    assert len(list(read_records(run))) == len(records) == 20

    home = answers(LanguageSolver(language, max_new_tokens=TOKENS), puzzles)
    # The server trims blanks.
    texts = {i: r["text"] for i, r in records.items()}
    assert texts == {i: r.text.strip() for i, r in home.items()}
    assert token_counts(records) == {i: r.completion_tokens for i, r in home.items()}
    assert {i: r["prompt_tokens"] for i, r in records.items()} == {
        i: r.prompt_tokens for i, r in home.items()
    }
    assert {r["finish_reason"] for r in records.values()} == {"length"}

    stranger = answers(solver("another-model"), toys[:1])[toys[0].id]
    assert isinstance(stranger, Failure)
    assert stranger.reason.startswith("HTTP 400: Server is pinned to")
