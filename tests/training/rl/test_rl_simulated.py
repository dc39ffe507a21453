"""Simulated practice: puzzles without end from the sources of a base, alike for one seed."""

import numpy as np
import pytest
from rl_toys import toy_files, toy_rl

from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import has_evidence, messages
from cello1.scoring.score import score
from cello1.solvers.local.prompter import Prompter
from cello1.training.base.sources import gather
from cello1.training.rl.data import read_rl_data, rl_files
from cello1.training.rl.rl import rl
from cello1.training.rl.simulated import simulated_puzzles


@pytest.fixture
def sources(tmp_path, toys):
    path = tmp_path / "sources.npz"
    gather([], None, [toys]).save(path)
    return str(path)


@pytest.fixture
def files(tmp_path):
    return toy_files(tmp_path)


def told(settings):
    return [messages(puzzle) for puzzle in simulated_puzzles(settings)]


def test_puzzles_have_answers_and_are_the_same_for_the_same_seed(files, sources):
    settings = toy_rl(*files, sources=sources, simulated=30, cells=(2, 4), evidence=0.5)
    puzzles = simulated_puzzles(settings)
    assert {len(puzzle.cells) for puzzle in puzzles} == {2, 3, 4}
    assert len({puzzle.meta["donor_id"] for puzzle in puzzles}) == 30
    for puzzle in puzzles:
        said = f"<think>So.</think>\n<answer>{' | '.join(puzzle.answer)}</answer>"
        assert score(puzzle, said).exact
        assert puzzle.meta["synthetic"]
        assert sorted(puzzle.candidates) == sorted(puzzle.answer)
    assert 5 < sum(map(has_evidence, puzzles)) < 25
    assert told(settings) == told(settings)
    assert told(settings) != told(settings.model_copy(update={"seed": 1}))
    more = settings.model_copy(update={"simulated": 31})
    assert told(more)[:30] == told(settings)


def test_evidence_names_genes_of_the_cell(files, sources):
    settings = toy_rl(*files, sources=sources, simulated=20, cells=(3, 4), evidence=1.0)
    cited = 0
    for puzzle in simulated_puzzles(settings):
        for genes, suggested in zip(puzzle.cells, puzzle.meta["cell_evidence"], strict=True):
            for label, percent, why in suggested:
                assert label in puzzle.candidates
                assert 0 <= percent <= 99
                assert set(why) <= set(genes)
                cited += len(why)
    assert cited > 20


def test_they_are_practised_on_beside_files_or_alone(files, sources, tmp_path):
    base, puzzles = files
    both = toy_rl(base, puzzles, sources=sources, simulated=12, cells=(2, 3))
    assert [path.name for path in rl_files(both)] == ["puzzles.parquet", "sources.npz"]
    data = read_rl_data(both, Prompter(base), 4_096, 8)
    assert data.counts["puzzles"] == 15 + 12
    assert 0 < data.counts["simulated"] <= 12
    assert all(not donor.startswith("simulated") for donor in data.counts["donors"])
    alone = toy_rl(base, puzzles, sources=sources, simulated=12, cells=(2, 3), trainer={
        "max_steps": 1}).model_copy(update={"puzzles": ()})  # fmt: skip
    made = rl(alone, tmp_path / "run")
    assert made.exists()


def test_what_cannot_be_simulated_is_refused(files, sources, tmp_path):
    base, puzzles = files
    with pytest.raises(InputError, match=r"there is no file .*nowhere\.npz"):
        rl_files(toy_rl(base, puzzles, sources=str(tmp_path / "nowhere.npz")))
    with pytest.raises(UseError, match="cells are 5 to 3"):
        rl_files(toy_rl(base, puzzles, sources=sources, cells=(5, 3)))
    with pytest.raises(UseError, match="sources=FILE to simulate"):
        rl_files(toy_rl(base, puzzles).model_copy(update={"puzzles": ()}))
    (tmp_path / "torn.npz").write_bytes(np.arange(9).tobytes())
    with pytest.raises(InputError):
        simulated_puzzles(toy_rl(base, puzzles, sources=str(tmp_path / "torn.npz")))
