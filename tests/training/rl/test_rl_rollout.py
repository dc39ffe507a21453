import numpy as np
import pytest
from rl_toys import ended, toy_files
from sft_toys import toy_traces

from cello1.puzzles.prompt import response_text
from cello1.recipes import Curriculum
from cello1.scoring.reward import batch, cell_batch, reward_of
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.curriculum import Course, take_cells
from cello1.training.rl.trl.rollout import Roller


@pytest.fixture(scope="module")
def prompter(tmp_path_factory):
    base, _ = toy_files(tmp_path_factory.mktemp("rollout"))
    return Prompter(base)


class Script:
    """An engine that says what it is told, and remembers what it was asked."""

    def __init__(self, prompter, say):
        self.prompter, self.say, self.seeds = prompter, say, []

    def __call__(self, prompts, seeds):
        self.seeds.append(seeds)
        texts = [
            self.say(self.prompter.vocabulary.text(p), s)
            for p, s in zip(prompts, seeds, strict=True)
        ]
        return [self.prompter.vocabulary.encode(text) for text in texts], None


def roller(prompter, script, rewards=(batch,), *, resample=False, course=None, size=2):
    ends = [prompter.tokenizer.eos_token_id]
    return Roller(prompter, ends, toy_traces(6), rewards, size, resample=resample, course=course,
                  seed=5, generate=script, total=dict, most=lambda n: n)  # fmt: skip


def test_what_is_cut_off_is_invalid_and_special_tokens_stay(prompter):
    (puzzle,) = toy_traces(1)
    right = response_text("so", puzzle.answer)
    said = [right + "<|im_end|>", right, right + "<|im_start|><|im_end|>", right + " <|im_end|>"]
    script = Script(prompter, lambda prompt, seed: said[seed[-1]])
    (group,) = roller(prompter, script, (batch, cell_batch, ended), size=4).roll(
        [puzzle], (0, 0), 0
    )
    assert [r.rewards for r in group.rollouts] == [(1, 1, 1), (-1, -1, 0), (-1, -1, 1), (1, 1, 1)]
    assert group.rollouts[1].score.reason == "cut off before its end"
    assert group.has_signal


def test_groups_without_signal_are_replaced(prompter):
    """Only what is asked anew gives a signal here, and not every time."""
    wrong = "<think></think>\n<answer>x</answer><|im_end|>"

    def say(prompt, seed):
        _, _, _, number, slot, j = seed
        return wrong if number == 0 or slot == 1 or j else "no<|im_end|>"

    script = Script(prompter, say)
    puzzles = toy_traces(3)
    rolled = roller(prompter, script, resample=True)
    groups = rolled.roll(puzzles, (7, 0), 0)
    assert [g.has_signal for g in groups] == [True, True, True]
    assert len(script.seeds) == 3  # two of three groups help in each round
    assert len({seed for seeds in script.seeds for seed in seeds}) == 18  # all dice differ
    figures = rolled.take_figures(2.0)
    assert figures["groups_sampled"] == 9
    assert figures["no_signal"] == pytest.approx(5 / 9, abs=1e-4)
    assert figures["responses_per_second"] == 9
    again = roller(prompter, Script(prompter, say), resample=True).roll(puzzles, (7, 0), 0)
    assert [g.puzzle.id for g in again] == [g.puzzle.id for g in groups]
    kept = roller(prompter, Script(prompter, say)).roll(puzzles, (7, 0), 0)
    assert [g.puzzle for g in kept] == puzzles
    assert not any(g.has_signal for g in kept)


def test_the_curriculum_adds_a_cell_when_enough_is_right(prompter):
    course = Course(Curriculum(start=2, pass_rate=0.5), most=3)
    answers = {}

    def say(prompt, seed):
        return answers[prompt] + "<|im_end|>"

    rolled = roller(prompter, Script(prompter, say), course=course)
    sizes = []
    for step in range(4):
        for puzzle in toy_traces(4):
            for kept in ([0, 1], [0, 2], [1, 2], [0, 1, 2]):
                part = take_cells(puzzle, kept)
                text = prompter.vocabulary.text(prompter.prompt(part)[0])
                answers[text] = response_text("", part.answer)
        groups = rolled.roll(toy_traces(4), (step, 0), 0)
        sizes.append({len(g.puzzle.cells) for g in groups})
    assert sizes == [{2}, {2}, {3}, {3}]


def test_cut_puzzles_are_sound_and_keep_distractors():
    puzzle = toy_traces(1)[0]
    offered = (*puzzle.candidates, "mast cell")
    puzzle = puzzle.__class__(puzzle.context, puzzle.cells, offered, puzzle.answer,
                              {"cell_ids": ["a", "b", "c"], "donor_id": "d"})  # fmt: skip
    course = Course(Curriculum(start=2), most=3)
    cut = course.cut(puzzle, np.random.default_rng(0))
    assert len(cut.cells) == 2
    assert set(cut.candidates) == {*cut.answer, "mast cell"}
    assert cut.meta == {"donor_id": "d"}
    places = [puzzle.cells.index(cell) for cell in cut.cells]
    assert cut.answer == tuple(puzzle.answer[i] for i in places)
    assert take_cells(puzzle, [0, 1, 2]).id == puzzle.id


def test_rewards_by_name():
    assert (reward_of("batch"), reward_of("cell+batch")) == (batch, cell_batch)
    assert reward_of("rl_toys.ended") is ended
