"""PPO from puzzles to a model folder, on a model that has to be right about two cells."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import messages, response_text, user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles
from cello1.recipes import PpoSettings, read_recipe
from cello1.solvers.local.language import LanguageModel
from cello1.training.base.pretrain import new_model
from cello1.training.base.tokens import make_tokenizer
from cello1.training.rl.ppo.ppo import PpoTrainer, batch_of, ppo
from cello1.training.run.checkpoints import checkpoints

TYPES = ("B cell", "T cell")


def puzzle(number):
    """Two cells of which the first is always the B cell: what reinforcement can find out."""
    dice = random.Random(number)
    cells = [["MS4A1", f"RPL{dice.randrange(30)}"], ["CD3D", f"RPS{dice.randrange(30)}"]]
    types = list(TYPES)
    dice.shuffle(types)
    return Puzzle("Blood.", cells, types, TYPES, {"donor_id": f"d{number % 5}"})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that answers in the format, and either way round, as chance has it."""
    folder = tmp_path_factory.mktemp("ppo") / "base"
    puzzles = [puzzle(number) for number in range(40)]
    answers = [response_text("", order) for order in (TYPES, TYPES[::-1])]
    genes = {gene for p in puzzles for cell in p.cells for gene in cell}
    tokenizer = make_tokenizer(sorted(genes), TYPES, [user_message(p) for p in puzzles], 600)
    model = new_model(tokenizer, hidden=32, layers=1, heads=2, context=4_096, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        rows = []
        for i, p in enumerate(puzzles[step % 5 :: 5]):
            chat = [message._asdict() for message in messages(p)]
            asked = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            said = answers[(step + i) % 2] + tokenizer.eos_token
            ids = [tokenizer.encode(text, add_special_tokens=False) for text in (asked, said)]
            rows.append((ids[0] + ids[1], [-100] * len(ids[0]) + ids[1]))
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows])
        labels = torch.tensor([said + [-100] * (width - len(said)) for _, said in rows])
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(base):
    path = base.parent / "train.parquet"
    write_puzzles([puzzle(number) for number in range(40)], path)
    return str(base), str(path)


def settings_of(files, **more):
    small = {
        "model": files[0], "puzzles": files[1], "held_out": 0.2, "solve": 4, "batch": 16,
        "minibatch": 8, "max_response": 14, "learning_rate": 1e-3, "value_learning_rate": 3e-3,
        "max_steps": 5, "evaluate_every": 2, "save_every": 1,
    }  # fmt: skip
    return PpoSettings(**(small | more))


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run):
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_it_learns_which_answer_is_right_and_the_best_is_published(files, tmp_path):
    model = ppo(
        settings_of(files, batch=32, max_steps=20, evaluate_every=5, save_every=9), tmp_path / "run"
    )
    log = log_of(tmp_path / "run")
    steps = [line for line in log if "reward" in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    first, last = (sum(line["reward"] for line in part) / 4 for part in (steps[:4], steps[-4:]))
    assert first < 0.45
    assert last > first + 0.2
    held_out = {line["step"]: line for line in log if "eval_batch_accuracy" in line}
    assert list(held_out) == [0, 5, 10, 15, 20]
    assert (held_out[0]["eval_batch_accuracy"], held_out[20]["eval_batch_accuracy"]) == (0, 1)
    record = json.loads((model / "training.json").read_text())
    best = max(held_out.values(), key=lambda e: e["eval_batch_accuracy"])
    assert record["result"]["eval_batch_accuracy"] == best["eval_batch_accuracy"] == 1
    assert record["result"]["step"] == best["step"]
    kept = {path.name for path in checkpoints(tmp_path / "run" / "checkpoints")}
    assert kept == {"checkpoint-20", f"checkpoint-{best['step']}"}
    assert not any(path.suffix in (".pt", ".bin", ".pkl") for path in tmp_path.rglob("*"))
    assert {p.name for p in model.iterdir()} >= {"config.json", "tokenizer.json"}
    assert not list(model.glob("trainer_state*"))
    LanguageModel(model)


def test_the_log_has_what_trl_logs_and_the_metrics_of_the_paper(files, tmp_path):
    ppo(settings_of(files, max_steps=2), tmp_path)
    line = next(line for line in log_of(tmp_path) if line["step"] == 1)
    names = """reward reward_std kl entropy clip_ratio/low_mean clip_ratio/high_mean
        clip_ratio/region_mean completions/mean_length completions/min_length
        completions/max_length completions/clipped_ratio format_validity uniqueness cell_accuracy
        batch_accuracy loss value_loss explained_variance grad_norm value_grad_norm learning_rate
        num_tokens step_time tokens_per_second responses_per_second"""
    assert set(names.split()) <= line.keys()
    shares = [line[f"share_{what}"] for what in ("generating", "rewarding", "training")]
    assert sum(shares) == pytest.approx(1, abs=1.5e-5)  # each is rounded to five places
    assert 1 <= line["completions/mean_length"] <= 14
    start = log_of(tmp_path)[0]
    assert (start["puzzles"], start["practised"], start["dropped_too_long"]) == (40, 32, 0)
    assert len(start["held_out_donors"]) == 1


def test_every_token_that_was_chosen_is_learned_from(files, tmp_path):
    trainer = PpoTrainer(settings_of(files), tmp_path, Path(files[0]), lambda what, share: None)
    language, asked = trainer.language, [puzzle(number) for number in range(12)]
    found = trainer.sampler.sample(asked, (3, 0), 0)
    for group in found:
        (rollout,) = group.rollouts
        assert group.prompt == language.prompt(group.puzzle)[0]
        assert rollout.finished == (rollout.tokens[-1] in language.ends)
        kept = rollout.tokens[:-1] if rollout.finished else rollout.tokens
        assert language.vocabulary.text(kept) == rollout.text
        if not rollout.finished:  # cut off, whatever it said until then
            assert len(rollout.tokens) == 14
            assert not rollout.score.format_valid
    right = [group.rollouts[0] for group in found if group.rollouts[0].score.format_valid]
    assert right
    # As in GRPO, the token behind the answer has to be chosen, and is learned from.
    assert all(r.text.endswith("</answer>") and len(r.tokens) < 14 for r in right)
    again, later = (trainer.sampler.sample(asked, (s, 0), 0) for s in (3, 4))
    assert again == found
    assert [g.rollouts[0].tokens for g in later] != [g.rollouts[0].tokens for g in found]


def test_every_puzzle_is_asked_once_an_epoch_in_another_order(files):
    puzzles, settings = [puzzle(number) for number in range(35)], settings_of(files, batch=8)
    epochs = [[batch_of(puzzles, 4 * e + s, settings) for s in range(4)] for e in range(2)]
    for epoch in epochs:
        ids = [p.id for batch in epoch for p in batch]
        assert len(set(ids)) == 32
    assert epochs[0] != epochs[1]
    assert batch_of(puzzles, 5, settings) == epochs[1][1]


def work(given, out, *, ends=True):
    def watch(what, share):
        if not ends and (what, share) == ("steps", 1.0):
            time.sleep(60)  # before the last validation, so that the blow finds it alive

    torch.set_num_threads(1)
    ppo(given, out, watch=watch)


def test_killed_with_9_at_five_moments_it_ends_with_the_same_weights(files, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["cello1.training.base.pretrain", "cello1.training.rl.ppo.ppo", "datasets"]
    )
    given = settings_of(files, max_steps=7, save_every=2, evaluate_every=3)
    ran = context.Process(target=work, args=(given, tmp_path / "whole"))
    ran.start()
    ran.join()
    steps = len(log_of(tmp_path / "whole"))
    dice, run = random.Random(4), tmp_path / "run"
    for lines in [*(dice.randrange(2, steps - 1) for _ in range(4)), steps - 1]:
        process = context.Process(
            target=work, args=(given, run), kwargs={"ends": False}, daemon=True
        )
        process.start()
        while process.is_alive() and _lines(run) < lines:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.1)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert _lines(run) == steps - 1
    ran = context.Process(target=work, args=(given, run))
    ran.start()
    ran.join()
    assert weights(run) == weights(tmp_path / "whole")
    told = [[(e["step"], e.get("reward"), e.get("loss")) for e in log_of(r)]
            for r in (run, tmp_path / "whole")]  # fmt: skip
    assert told[0] == told[1]


def _lines(run):
    try:
        return (run / "log.jsonl").read_text().count("\n")
    except FileNotFoundError:
        return 0


def test_a_finished_run_is_not_repeated_and_refuses_other_settings(files, tmp_path):
    model = ppo(settings_of(files, max_steps=1), tmp_path)
    before = log_of(tmp_path)
    assert ppo(settings_of(files, max_steps=1), tmp_path) == model
    assert log_of(tmp_path) == before
    with pytest.raises(InputError, match=r"another config: learning_rate was 0\.001"):
        ppo(settings_of(files, max_steps=1, learning_rate=1e-4), tmp_path)


def test_a_loss_that_is_no_number_stops_and_leaves_the_checkpoint(files, tmp_path):
    with pytest.raises(InputError, match=r"training stopped, and the checkpoints"):
        ppo(settings_of(files, learning_rate=1e30, max_steps=3), tmp_path)
    assert checkpoints(tmp_path / "checkpoints")
    for place in checkpoints(tmp_path / "checkpoints"):
        model = LanguageModel(place).model
        assert all(bool(torch.isfinite(w).all()) for w in model.parameters())


def test_a_full_disk_leaves_the_earlier_checkpoint(files, tmp_path, monkeypatch):
    from cello1.training.rl.ppo import ppo as room

    written = room.write_atomic

    def full(path, content):
        if path.parent.name == "checkpoint-2":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, content)

    monkeypatch.setattr(room, "write_atomic", full)
    with pytest.raises(InputError, match="make room and run the same command again"):
        ppo(settings_of(files), tmp_path)
    assert "checkpoint-1" in [p.name for p in checkpoints(tmp_path / "checkpoints")]
    monkeypatch.undo()
    ppo(settings_of(files), tmp_path)
    ppo(settings_of(files), tmp_path.parent / "whole")
    assert weights(tmp_path) == weights(tmp_path.parent / "whole")


def test_bad_input_is_told(files, tmp_path, monkeypatch):
    train = files[1]
    with pytest.raises(UseError, match="no puzzles are named"):
        ppo(settings_of(files, puzzles=()), tmp_path / "a")
    with pytest.raises(UseError, match="no model is named"):
        ppo(settings_of(files, model=""), tmp_path / "a")
    with pytest.raises(InputError, match=r"no\.parquet does not exist"):
        ppo(settings_of(files, puzzles="no.parquet"), tmp_path / "a")
    with pytest.raises(InputError, match="prompts of all 32 puzzles are longer than 5 tokens"):
        ppo(settings_of(files, max_prompt=5), tmp_path / "b")
    with pytest.raises(InputError, match=r"5 donors of .* are learned from as well"):
        ppo(settings_of(files, validation=train), tmp_path / "c")
    write_puzzles([Puzzle("Blood.", [["A"], ["B"]], TYPES)], tmp_path / "asked.parquet")
    with pytest.raises(InputError, match="has an answer, so no response could be rewarded"):
        ppo(settings_of(files, puzzles=str(tmp_path / "asked.parquet")), tmp_path / "d")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UseError, match="runs in one process"):
        ppo(settings_of(files), tmp_path / "e")


def test_the_recipe_has_the_settings_of_the_paper():
    recipes = Path(__file__).resolve().parents[3] / "recipes"
    found = read_recipe(recipes / "cell-o1-7b.yaml").ppo
    assert (found.batch, found.epochs, found.kl, found.reward) == (64, 20, 0.001, "batch")
    assert (found.max_prompt, found.max_response) == (3_072, 3_000)
    assert (found.learning_rate, found.value_learning_rate) == (1e-6, 1e-5)
    assert (found.gamma, found.lam) == (1, 1)
