"""Models with sliding windows are fine-tuned and merged like any other."""

import pytest
from sft_toys import toy_settings, toy_trace, toy_traces
from tiny import ALTERNATING, make_tokenizer, make_windowed

from cello1.puzzles.prompt import user_message
from cello1.scoring.score import score
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.likelihood import LikelihoodSolver
from cello1.training.merge import merge
from cello1.training.run.traces import write_traces
from cello1.training.sft.sft import sft


@pytest.mark.parametrize("kind", ["gemma3", "mistral"])
def test_a_step_and_a_merge_leave_a_model_that_answers(tmp_path, kind):
    texts = [user_message(trace) for trace in toy_traces(60)]
    base = make_windowed(tmp_path / "base", make_tokenizer(texts, template=ALTERNATING), kind)
    write_traces(toy_traces(), tmp_path / "traces.parquet")
    settings = toy_settings(base, tmp_path / "traces.parquet", trainer={"max_steps": 1}, solve=0)
    merged = merge(sft(settings, tmp_path / "run"), tmp_path / "merged")
    before, after = (LikelihoodSolver(LanguageModel(f)) for f in (base, merged))
    puzzle = toy_trace(99, "d9")
    assert abs(after.likelihoods(puzzle) - before.likelihoods(puzzle)).max() > 1e-6
    found = {}
    after.solve([puzzle], found.__setitem__)
    assert score(puzzle, found[puzzle.id].text).reason == ""
