"""Trainings that cannot go well say so in one line, before or after, and lose nothing."""

import json
import multiprocessing
import resource
import shutil
import signal

import pytest
import torch
from rl_toys import toy_files as rl_files
from rl_toys import toy_rl
from sft_toys import toy_files, toy_settings

from cello1.cli.sft import show_made
from cello1.errors import InputError
from cello1.training.merge import merge
from cello1.training.rl.rl import rl
from cello1.training.run.checkpoints import checkpoints
from cello1.training.sft.sft import sft


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return toy_files(tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def practice(tmp_path_factory):
    return rl_files(tmp_path_factory.mktemp("practice"))


def test_too_few_puzzles_for_a_step_are_told_before(practice, tmp_path):
    settings = toy_rl(*practice, trainer={"gradient_accumulation_steps": 64})
    with pytest.raises(InputError, match=r"12 puzzles are left .* every step asks 128") as told:
        rl(settings, tmp_path)
    assert "15 puzzles, less those held out" in str(told.value)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_run_without_any_signal_says_so_before_and_after(practice, tmp_path, caplog, capsys):
    settings = toy_rl(*practice, reward="rl_toys.flat", trainer={"max_steps": 2})
    made = rl(settings, tmp_path / "run")
    before, after = [record.getMessage() for record in caplog.records]
    # Killed before it was published, with a line half written, it still says so.
    shutil.rmtree(made)
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "rew')
    assert rl(settings, tmp_path / "run") == made
    assert caplog.records[-1].getMessage() == after
    assert before.startswith("before training, no response to 2 held-out puzzles is in the format")
    assert after.startswith("nothing was learned in")
    assert json.loads((made / "training.json").read_text())["result"]["had_signal"] is False
    show_made(made, tmp_path / "run", "lora", False)
    assert capsys.readouterr().out.startswith("nothing was learned: ")


def limited(settings, out, most, told):
    """Train where no file may grow beyond some bytes: writing fails as on a full disk."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        sft(settings, out)
    except InputError as error:
        told.put(str(error))
    except BaseException as error:
        told.put(f"{type(error)}: {error}")


@pytest.mark.parametrize("share", [0.5, 1.5])  # of the weights: these fail, or Adam's state
def test_writing_that_fails_in_any_library_is_one_error(files, tmp_path, share):
    settings = toy_settings(*files, method="full", solve=0, trainer={"max_steps": 2})
    most = int((files[0] / "model.safetensors").stat().st_size * share)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cello1.training.sft.trainer", "cello1.training.sft.sft"])
    told = context.Queue()
    process = context.Process(target=limited, args=(settings, tmp_path / "run", most, told))
    process.start()
    said = told.get(timeout=120)
    process.join()
    assert "could not be written" in said
    assert "MB free); make room and run the same command again" in said
    assert str(tmp_path / "run") in said
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))  # what is torn takes no room
    assert (sft(settings, tmp_path / "run") / "model.safetensors").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "torn weights": ("adapter_model.safetensors", cut),
    "torn optimizer": ("optimizer.pt", cut),
    "no optimizer": ("optimizer.pt", lambda path: path.write_bytes(b"")),
    "an optimizer of another kind": ("optimizer.pt", lambda path: path.write_text("hello")),
    "torn random state": ("rng_state.pth", cut),
    "torn state": ("trainer_state.json", cut),
    "a state that is a list": ("trainer_state.json", lambda path: path.write_text("[]")),
    "a state of odd types": (
        "trainer_state.json",
        lambda path: path.write_text('{"global_step": "2", "max_steps": 9, "log_history": []}'),
    ),
}


@pytest.fixture(scope="module")
def stopped(files, tmp_path_factory):
    """A run that was interrupted behind its checkpoints."""
    settings, run = toy_settings(*files, solve=0), tmp_path_factory.mktemp("stopped") / "run"

    def die(what, share):
        if what == "steps" and share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sft(settings, run, watch=die)
    assert checkpoints(run / "checkpoints")
    return settings, run


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_checkpoint_is_named(stopped, tmp_path, damage):
    settings, run = stopped
    here = tmp_path / "run"
    shutil.copytree(run, here)
    newest = checkpoints(here / "checkpoints")[-1]
    name, change = DAMAGE[damage]
    change(newest / name)
    with pytest.raises(InputError, match=r"is damaged .*remove the folder") as told:
        sft(settings, here)
    assert str(newest / name) in str(told.value)
    shutil.rmtree(newest)
    assert (sft(settings, here) / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"settings": {}, "versions": 3}', "[" * 99_999])
def test_an_altered_record_is_named(stopped, tmp_path, text):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "training.json").write_text(text)
    with pytest.raises(InputError, match=r"training\.json is damaged"):
        merge(adapter, tmp_path / "model")
