import pytest
from rl_toys import ended, toy_files
from sft_toys import toy_traces

from cello1.puzzles.prompt import response_text
from cello1.scoring.reward import batch, cell_batch, reward_of
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.rollout import RolloutSampler


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


def sampler(prompter, script, rewards=(batch,), *, size=2):
    ends = [prompter.tokenizer.eos_token_id]
    return RolloutSampler(prompter, ends, rewards, size, seed=5, generate=script)


def test_what_is_cut_off_is_invalid_and_special_tokens_stay(prompter):
    (puzzle,) = toy_traces(1)
    right = response_text("so", puzzle.answer)
    said = [right + "<|im_end|>", right, right + "<|im_start|><|im_end|>", right + " <|im_end|>"]
    script = Script(prompter, lambda prompt, seed: said[seed[-1]])
    (group,) = sampler(prompter, script, (batch, cell_batch, ended), size=4).sample(
        [puzzle], (0, 0), 0
    )
    assert [r.rewards for r in group.rollouts] == [(1, 1, 1), (-1, -1, 0), (-1, -1, 1), (1, 1, 1)]
    assert group.rollouts[1].score.reason == "cut off before its end"
    assert group.has_signal


def test_seeds_differ_and_depend_on_the_place_alone(prompter):
    script = Script(prompter, lambda prompt, seed: f"{seed[-1] % 2}<|im_end|>")
    rolled = sampler(prompter, script)
    puzzles = toy_traces(3)
    groups = rolled.sample(puzzles, (7, 0), 0)
    rolled.sample(puzzles, (7, 1), 0)
    assert len({seed for seeds in script.seeds for seed in seeds}) == 12
    assert [g.puzzle for g in groups] == puzzles
    assert not any(g.has_signal for g in groups)  # all are invalid
    figures = rolled.take_figures(2.0)
    assert (figures["groups_sampled"], figures["no_signal"]) == (6, 1)
    assert figures["responses_per_second"] == 6
    assert (figures["completions/min_length"], figures["completions/max_length"]) == (2, 2)
    assert rolled.take_figures(1.0) == {}
    again = Script(prompter, script.say)
    sampler(prompter, again).sample(puzzles[1:], (7, 0), 1)
    assert again.seeds[0] == script.seeds[0][2:]


def test_rewards_by_name():
    assert (reward_of("batch"), reward_of("cell+batch")) == (batch, cell_batch)
    assert reward_of("rl_toys.ended") is ended
