"""A model that responds at random, and a reward it can learn: whether it ends in time."""

from sft_toys import toy_base, toy_traces

from cello1.puzzles.table import write_puzzles
from cello1.recipes import RlSettings


def ended(score):
    """Return 1 for a response that ended before its budget, whatever it says."""
    return float(not score.reason.startswith("cut off"))


def flat(score):
    """Return the same for every response."""
    return 0.5


def toy_files(folder):
    """Write a base model of which a third of all tokens end a response, and puzzles."""
    base = toy_base(folder / "base")
    path = base / "generation_config.json"
    path.write_text(f'{{"eos_token_id": [2, {", ".join(map(str, range(300, 420)))}]}}')
    write_puzzles(toy_traces(15, donors=5), folder / "puzzles.parquet")
    return base, folder / "puzzles.parquet"


def toy_rl(base, puzzles, **more):
    trainer = {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "max_steps": 8,
    } | more.pop("trainer", {})
    named = {
        "model": str(base),
        "puzzles": str(puzzles),
        "reward": "rl_toys.ended",
        "rank": 4,
        "alpha": 8,
        "evaluate_every": 2,
        "solve": 2,
        "max_new_tokens": 8,
        "held_out": 0.2,
    }
    return RlSettings(**(named | more | {"trainer": trainer}))
