import errno
import json
import math
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from sft_toys import TEMPLATES, toy_base, toy_files, toy_settings, toy_trace, toy_traces
from transformers import AutoTokenizer
from trl import SFTTrainer

import cello1
from cello1.errors import InputError, UseError
from cello1.puzzles.table import row_from_puzzle, write_puzzles
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.checkpoints import checkpoints
from cello1.training.run.data import hold_out
from cello1.training.run.traces import response_of, write_traces
from cello1.training.sft.data import make_examples
from cello1.training.sft.sft import make_trainer, sft, trainer_config


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return toy_files(tmp_path_factory.mktemp("sft"))


@pytest.fixture(scope="module", params=list(TEMPLATES))
def templated(request, tmp_path_factory):
    return request.param, toy_base(tmp_path_factory.mktemp(request.param), request.param)


def prepared(base, traces, out, **more):
    settings = toy_settings(base, traces, **more)
    config = trainer_config(settings, out / "checkpoints")
    return make_trainer(settings, out, base, config, lambda what, share: None)


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_prompts_are_those_of_inference(templated):
    _, base = templated
    asked, prompter = LanguageModel(base), Prompter(base)
    for example in make_examples(toy_traces(6), prompter):
        assert example.prompt == asked.prompt(example.puzzle)[0]


def test_the_loss_covers_the_response_and_its_end_only(templated):
    name, base = templated
    prompter = Prompter(base)
    for example in make_examples(toy_traces(6), prompter):
        row = example.row()
        learned = [t for t in row["labels"] if t != -100]
        assert row["input_ids"][: len(example.prompt)] == example.prompt
        assert row["labels"][: len(example.prompt)] == [-100] * len(example.prompt)
        text = response_of(example.puzzle)
        if name == "thinks":  # the template opened the block
            text = text.removeprefix("<think>")
        assert prompter.vocabulary.text(learned) == text + "<|im_end|>"
        assert learned[-1] in LanguageModel(base).ends


def test_batches_hold_the_same_labels(files, tmp_path):
    """What TRL makes of the rows is what we gave it."""
    trainer, data = prepared(*files, tmp_path)
    wanted = {tuple(e.prompt + e.response): e.row()["labels"] for e in data.learn}
    for batch in trainer.get_train_dataloader():
        for ids, labels, mask in zip(*(batch[k].tolist() for k in batch), strict=True):
            kept = sum(mask) if set(mask) <= {0, 1} else None
            assert kept is not None
            assert wanted.pop(tuple(ids[:kept])) == labels[:kept]
            assert set(labels[kept:]) <= {-100}
    assert not wanted


def test_packed_traces_do_not_see_each_other(files, tmp_path):
    more = {"method": "full", "max_length": 2048}
    apart, data = prepared(*files, tmp_path / "a", **more)
    packed, _ = prepared(*files, tmp_path / "b", packing=True, **more)
    assert len(packed.train_dataset) < len(data.learn)
    for trainer in (apart, packed):
        trainer.model.eval()
    total = {}
    for name, trainer in (("apart", apart), ("packed", packed)):
        losses = [
            -trainer.model(**batch, fused_lm_head=True).log_probs.sum().item()
            for batch in trainer.get_train_dataloader()
        ]
        total[name] = sum(losses)
    assert math.isclose(total["apart"], total["packed"], rel_tol=1e-5)


def test_killed_and_resumed_gives_the_same_weights(files, tmp_path):
    settings = toy_settings(*files)

    def die(what, share):
        if what == "steps" and share > 0.55:
            raise KeyboardInterrupt

    whole = sft(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sft(settings, tmp_path / "killed", watch=die)
    torn = tmp_path / "killed" / "checkpoints" / "checkpoint-7"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    with (tmp_path / "killed" / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    resumed = sft(settings, tmp_path / "killed")
    names = ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja")
    for name in names:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    logs = [[(e["step"], e.get("loss")) for e in log_of(r.parent)] for r in (whole, resumed)]
    assert logs[0] == logs[1]
    assert sft(settings, tmp_path / "killed") == resumed  # nothing left to do
    record = json.loads((whole / "training.json").read_text())
    assert {"eval_batch_accuracy", "eval_cell_accuracy", "eval_loss"} <= set(record["result"])
    steps = [entry for entry in log_of(whole.parent) if "loss" in entry]
    assert all(entry["tokens_per_second"] > 0 for entry in steps)
    assert all(0 <= entry["padding_waste"] < 0.2 for entry in steps)


def work(settings, out, kept=None):
    def watch(what, share):  # called before the checkpoint of a step is written
        if kept is not None and len(checkpoints(out / "checkpoints")) == kept:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    sft(settings, out, watch=watch)


def test_killed_with_9_and_resumed_it_ends_with_the_same_weights(files, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cello1.training.sft.trainer", "cello1.training.sft.sft"])
    settings, run = toy_settings(*files), tmp_path / "run"
    whole = context.Process(target=work, args=(settings, tmp_path / "whole"))
    whole.start()
    whole.join()
    for kept in (1, 2):  # killed while it steps towards the next checkpoint
        process = context.Process(target=work, args=(settings, run, kept))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (run / "adapter").exists()
    last = context.Process(target=work, args=(settings, run))
    last.start()
    last.join()
    name = "adapter/adapter_model.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_on_a_processor_is_that_of_trl(files, tmp_path, method):
    trainer, _ = prepared(*files, tmp_path, method=method, dropout=0.0)
    trainer.model.eval()
    for batch in list(trainer.get_train_dataloader())[:3]:
        ours = trainer.compute_loss(trainer.model, dict(batch))
        theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
        assert torch.allclose(ours, theirs, rtol=1e-5)
    noted = trainer._metrics["eval"]
    for name in ("entropy", "mean_token_accuracy"):
        assert noted[name][::2] == pytest.approx(noted[name][1::2], rel=1e-4)


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_in_half_precision_the_loss_is_the_same_up_to_rounding(files, tmp_path, method):
    trainer, _ = prepared(*files, tmp_path, method=method, dropout=0.0)
    assert trainer.args.bf16
    trained = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert trained == {torch.float32}
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    ours = trainer.compute_loss(trainer.model, dict(batch))
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    assert torch.allclose(ours, theirs, rtol=1e-2)
    assert ours.dtype == torch.float32


def test_held_out_puzzles_need_no_traces(files, tmp_path):
    base, traces = files
    write_puzzles([toy_trace(77, "d77")], tmp_path / "v.parquet")
    puzzle = cello1.read_puzzles(tmp_path / "v.parquet")[0]
    meta = {k: v for k, v in puzzle.meta.items() if k != "assistant_msg"}
    write_puzzles([replace(puzzle, meta=meta)], tmp_path / "v.parquet")
    more = {"validation": str(tmp_path / "v.parquet"), "trainer": {"num_train_epochs": 1}}
    run = sft(toy_settings(base, traces, **more), tmp_path / "run").parent
    assert "eval_batch_accuracy" in json.loads((run / "training.json").read_text())["result"]


def test_a_finished_run_refuses_other_settings(files, tmp_path):
    settings = toy_settings(*files, solve=0, trainer={"max_steps": 1})
    sft(settings, tmp_path)
    with pytest.raises(InputError, match="another config: rank was 4 and is now 8"):
        sft(settings.model_copy(update={"rank": 8}), tmp_path)


def test_long_traces_are_dropped_and_counted(files, tmp_path):
    base, _ = files
    long = toy_trace(99, "d9", words=300)
    write_traces([*toy_traces(), long], tmp_path / "t.parquet")
    more = {"held_out": 0, "solve": 0, "trainer": {"max_steps": 1}, "max_length": 800}
    sft(toy_settings(base, tmp_path / "t.parquet", **more), tmp_path / "run")
    start = log_of(tmp_path / "run")[0]
    assert (start["learned"], start["dropped_too_long"]) == (20, 1)
    write_traces([long], tmp_path / "long.parquet")
    with pytest.raises(InputError, match="all 1 traces are longer than 800 tokens"):
        sft(toy_settings(base, tmp_path / "long.parquet", **more), tmp_path / "none")


def test_published_reasoning_rows_are_learned_from(files, tmp_path):
    """No donors, their own system message, a blank behind the context."""
    rows = []
    for number, trace in enumerate(toy_traces(8)):
        row = row_from_puzzle(trace)
        user = row["user_msg"].replace("Blood.", f"The cell is from donor {number % 4}. ")
        rows.append({"system_msg": "Be an expert.", "user_msg": user})
        rows[-1]["assistant_msg"] = row["assistant_msg"]
    path = tmp_path / "reasoning.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer, data = prepared(files[0], path, tmp_path)
    contexts = [{e.puzzle.context for e in part} for part in (data.learn, data.held_out)]
    assert not contexts[0] & contexts[1]
    assert len(data.held_out) == 2
    text = AutoTokenizer.from_pretrained(files[0]).decode(data.learn[0].prompt)
    assert "system\nBe an expert.<|im_end|>" in text
    assert len(trainer.train_dataset) == 6


def test_answers_alone_and_all_weights(files, tmp_path):
    write_puzzles(toy_traces(), tmp_path / "puzzles.parquet")
    settings = toy_settings(
        files[0], tmp_path / "puzzles.parquet", answers_only=True, method="full",
        trainer={"max_steps": 2},
    )  # fmt: skip
    model = sft(settings, tmp_path / "run")
    assert LanguageModel(model).model.num_parameters() > 10_000
    tokenizer = AutoTokenizer.from_pretrained(model)
    _, data = prepared(files[0], tmp_path / "puzzles.parquet", tmp_path, answers_only=True)
    assert tokenizer.decode(data.learn[0].response).startswith("<think></think>\n<answer>")


def test_donors_are_held_out_whole():
    learn, held = hold_out(toy_traces(40, donors=10), 0.2, seed=1)
    donors = [{t.meta["donor_id"] for t in part} for part in (learn, held)]
    assert len(donors[1]) == 2
    assert not donors[0] & donors[1]
    with pytest.raises(InputError, match="all traces are of one donor"):
        hold_out(toy_traces(4, donors=1), 0.1, 0, "traces")


def test_validation_shares_no_donor(files, tmp_path):
    base, traces = files
    write_puzzles([toy_trace(77, "d1")], tmp_path / "v.parquet")
    settings = toy_settings(base, traces, validation=str(tmp_path / "v.parquet"))
    with pytest.raises(InputError, match=r"1 donors .* \(such as d1\)"):
        sft(settings, tmp_path / "run")


def test_trainer_keys_that_are_unknown_or_ours(files, tmp_path):
    wrong = {"learning_rat": 1, "output_dir": "x"}
    with pytest.raises(UseError) as told:
        sft(toy_settings(*files, trainer=wrong), tmp_path)
    assert "learning_rat is unknown (did you mean learning_rate?)" in str(told.value)
    assert "output_dir is not set here (use --out)" in str(told.value)
    config = trainer_config(toy_settings(*files, trainer={"learning_rate": "1e-6"}), tmp_path)
    assert config.learning_rate == 1e-6


def test_a_loss_that_is_no_number_stops(files, tmp_path):
    settings = toy_settings(*files, trainer={"learning_rate": 1e38, "max_grad_norm": 0})
    with pytest.raises(InputError, match=r"is not finite|the loss is nan"):
        sft(settings, tmp_path)
    for path in checkpoints(tmp_path / "checkpoints"):
        from safetensors.torch import load_file

        weights = load_file(path / "adapter_model.safetensors")
        assert all(torch.isfinite(w).all() for w in weights.values())


def test_a_full_disk_leaves_the_earlier_checkpoint(files, tmp_path, monkeypatch):
    from transformers import Trainer

    saved = Trainer._save_optimizer_and_scheduler

    def full(self, folder):
        if self.state.global_step >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(self, folder)

    settings = toy_settings(*files)
    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(InputError, match="make room and run the same") as told:
        sft(settings, tmp_path)
    assert "checkpoint-2" in str(told.value)
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["checkpoint-2"]
    monkeypatch.undo()
    assert (sft(settings, tmp_path) / "adapter_model.safetensors").exists()


def test_patience_and_order():
    from cello1.training.run.held_out import SELECTION_SCORE, out_of_patience
    from cello1.training.sft.trainer import LengthSampler

    history = [{SELECTION_SCORE: m} for m in (0.1, 0.4, 0.4, 0.3)]
    assert out_of_patience(history, 2)
    assert not out_of_patience(history, 3)
    assert not out_of_patience(history, None)
    lengths = list(range(101))
    sampler = LengthSampler(lengths, batch=4, seed=1)
    first = list(sampler)
    assert sorted(first) == lengths
    assert first == list(sampler)
    spans = [max(first[i : i + 4]) - min(first[i : i + 4]) for i in range(0, 100, 4)]
    assert max(spans) == 3
    sampler.set_epoch(1)
    assert first != list(sampler)


def test_bad_bases_and_traces(files, tmp_path):
    base, traces = files
    with pytest.raises(InputError, match=r"config\.json is missing"):
        sft(toy_settings(traces.parent, traces), tmp_path / "run")
    (tmp_path / "w").mkdir()
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / "w" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="holds no weights"):
        sft(toy_settings(tmp_path / "w", traces), tmp_path / "run")
    with pytest.raises(InputError, match=r"no\.parquet does not exist"):
        sft(toy_settings(base, tmp_path / "no.parquet"), tmp_path / "run")
    write_puzzles([], tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="there is no trace in"):
        sft(toy_settings(base, tmp_path / "empty.parquet"), tmp_path / "run")
