"""The command line as a user meets it: exit status, one-line errors, results kept."""

import json
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import cello1 as co
from cello1 import cli
from cello1.cli.app import _last_words, _stoppable, _Stopped
from cello1.errors import InputError

TYPES = ["B cell", "natural killer cell", "classical monocyte", "fibroblast", "hepatocyte"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    rng = np.random.default_rng(0)
    base = rng.gamma(0.5, size=300)
    shares = {t: base * np.exp(rng.normal(0, 2, 300) * (rng.random(300) < 0.05)) for t in TYPES}
    profiles = pd.DataFrame(shares, index=[f"ZNF{i}" for i in range(300)])
    cells = co.simulate(profiles, donors=6, cells_per_type=6, obs={"tissue": "blood"})
    path = tmp_path_factory.mktemp("cells") / "good.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture
def truncated(good, tmp_path):
    path = tmp_path / "truncated.h5ad"
    path.write_bytes(good.read_bytes()[:20_000])
    return path


def test_the_whole_line(run, good, tmp_path):
    puzzles, alone, joint = tmp_path / "puzzles", tmp_path / "alone", tmp_path / "joint"
    code, out, _ = run("build", good, "--out", puzzles, "--n-min", 3, "--n-max", 5)
    assert code == 0
    assert "0 leaks" in out
    assert run("audit", puzzles)[0] == 0
    assert run("solve", puzzles, "--solver", "centroids", "--alone", "--out", alone)[0] == 0
    assert run("solve", puzzles, "--solver", "centroids", "--out", joint)[0] == 0
    code, out, _ = run("eval", joint, alone, "--json")
    result = json.loads(out)
    assert code == 0
    assert set(result["runs"]) == {"joint", "alone"}
    better = result["paired"]["joint - alone"]["batch_accuracy"]
    assert better["difference"]["estimate"] > 0
    assert better["only_b"] == 0
    assert (
        json.loads((joint / "metrics.json").read_text())["overall"]["n"]
        == better["difference"]["n"]
    )
    assert "chance" in run("eval", joint, alone)[1]


def test_a_broken_file_beside_a_good_one(run, good, truncated, tmp_path):
    out = tmp_path / "out"
    code, _, err = run("build", good, truncated, "--out", out, "--n-min", 3, "--workers", 2)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "truncated" in err
    assert len(co.read_puzzles(out / "train.parquet")) > 0


def test_a_broken_file_alone(run, truncated, tmp_path):
    code, _, err = run("build", truncated, "--out", tmp_path / "out")
    assert code == 1
    assert err.startswith("error: no puzzle could be built")
    assert "copy or download it again" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--n-min", "9", "--n-max", "8"], "n_max is 8, below n_min"),
        (["--split", "magic"], "split: Input should be"),
        (["--n-min", "many"], "Invalid value"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_wrong_use_ends_with_status_2(run, good, tmp_path, arguments, said):
    code, _, err = run("build", good, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert said in " ".join(err.split())


def test_too_few_donors_to_split_says_what_to_do(run, good, tmp_path):
    single = anndata.read_h5ad(good)
    single = single[single.obs["donor_id"] == "sim001"].copy()
    single.write_h5ad(tmp_path / "single.h5ad")
    code, _, err = run("build", tmp_path / "single.h5ad", "--out", tmp_path / "out", "--n-min", 3)
    assert code == 1
    assert "--split none" in err
    # The folder is not spoilt by the first try.
    again = ("build", tmp_path / "single.h5ad", "--out", tmp_path / "out", "--n-min", 3)
    assert run(*again, "--split", "none")[0] == 0


def test_audit_fails_on_a_leak(run, good, tmp_path):
    assert run("build", good, "--out", tmp_path / "b", "--n-min", 3, "--split", "puzzle")[0] == 0
    code, out, _ = run("audit", tmp_path / "b")
    assert code == 1
    assert "LEAK" in out


def test_audit_reads_published_rows(run, shared):
    code, out, _ = run("audit", shared / "data" / "cellpuzzles_rows.jsonl")
    assert code == 0
    assert "name no donor" in out


def test_doctor_describes_a_good_file_and_a_bad_one(run, good, truncated):
    code, out, _ = run("doctor", good, "--json")
    assert code == 1  # 5 types per donor, fewer than the 8 that build asks for by default
    assert "lower --n-min to 5" in json.loads(out)["problems"][0]
    code, out, _ = run("doctor", truncated)
    assert code == 1
    assert "truncated" in out


def test_solve_names_what_is_missing(run, good, tmp_path):
    run("build", good, "--out", tmp_path / "p", "--n-min", 3, "--split", "none")
    file = tmp_path / "p" / "all.parquet"
    code, _, err = run("solve", file, "--solver", "centroids", "--out", tmp_path / "r")
    assert (code, "--train" in err) == (2, True)
    code, _, err = run("solve", file, "--solver", "magic", "--out", tmp_path / "r")
    assert (code, "chance, markers, centroids" in err) == (2, True)
    code, _, err = run("eval", tmp_path)
    assert (code, "no run folder" in err) == (1, True)
    code, _, err = run(
        "solve", tmp_path / "none.parquet", "--solver", "chance", "--out", tmp_path / "r"
    )
    assert (code, "does not exist" in err) == (1, True)


def test_importing_the_package_and_its_help_load_nothing_heavy():
    code = (
        "import sys, cello1, cello1.cli\n"
        "heavy = {'torch', 'scanpy', 'anndata', 'numba', 'pandas', 'scipy'} & {*sys.modules}\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_installed_command_answers():
    command = Path(sys.executable).parent / "cello1"
    said = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(verb in said for verb in ("demo", "build", "solve", "eval", "audit", "doctor"))


def test_eval_shows_calibration_and_fits_a_temperature_on_other_donors(run, good, tmp_path):
    run("build", good, "--out", tmp_path / "p", "--n-min", 3, "--n-max", 5)
    for split in ("validation", "test"):
        command = ("solve", tmp_path / "p", "--solver", "markers", "--split", split)
        assert run(*command, "--out", tmp_path / split)[0] == 0
    code, out, _ = run("eval", tmp_path / "test", "--json")
    plain = json.loads(out)["runs"]["test"]["calibration"]["cell"]
    code, out, _ = run(
        "eval", tmp_path / "test", "--calibrate-on", tmp_path / "validation", "--json"
    )
    fitted = json.loads(out)["runs"]["test"]["calibration"]["cell"]
    assert code == 0
    assert plain["temperature"] is None
    assert fitted["temperature"] > 0
    code, _, err = run("eval", tmp_path / "test", "--calibrate-on", tmp_path / "test")
    assert (code, "cannot calibrate" in err) == (1, True)


def test_a_dry_run_shows_every_request_of_a_vote_and_sends_nothing(run, good, tmp_path):
    pytest.importorskip("openai")
    run("build", good, "--out", tmp_path / "p", "--n-min", 3, "--split", "none", "--per-n", 1)
    asked = len(co.read_puzzles(tmp_path / "p" / "all.parquet"))
    command = ("solve", tmp_path / "p", "--out", tmp_path / "r", "--dry-run", "--solver")
    code, out, _ = run(*command, "openai:x", "--base-url", "http://localhost:9/v1", "--samples", 3)
    assert code == 0
    assert out.count('"role": "user"') == 3 * asked
    assert f'"prompts": {3 * asked}' in out
    assert not (tmp_path / "r").exists()
    code, _, err = run(*command, "chance")
    assert (code, "send nothing to anyone" in err) == (2, True)


def test_language_options_are_checked_before_anything_is_loaded(run, good, tmp_path):
    run("build", good, "--out", tmp_path / "p", "--n-min", 3, "--split", "none")
    command = ("solve", tmp_path / "p", "--out", tmp_path / "r", "--solver")
    code, _, err = run(*command, "markers", "--valid")
    assert (code, "valid cannot be used with solver markers" in err) == (2, True)
    code, _, err = run(*command, "hf:x", "--decode", "assign", "--samples", 3)
    assert (code, "neither samples nor writes" in err) == (2, True)
    code, _, err = run(*command, f"hf:{tmp_path}/none")
    assert (code, "expected a folder with config" in err) == (1, True)


@pytest.mark.parametrize(
    ("error", "words", "status"),
    [
        (KeyError("odd"), "unexpected KeyError in cello1.*odd.*--debug", 1),
        (ValueError("x\n\x1b[31my"), "unexpected ValueError in", 1),
        (MemoryError("Unable to allocate 9 GiB"), "not enough memory .Unable to allocate 9 GiB", 1),
        (RecursionError("deep"), "nested too deep", 1),
        (ModuleNotFoundError("no", name="trl.x"), r"pip install 'cello1\[train\]'", 1),
        (ExceptionGroup("many", [InputError("this file")]), "^error: this file$", 1),
        (OSError(28, "No space left on device", "a/b"), "^error: a/b: No space left", 1),
        (OSError("odd"), "unexpected OSError", 1),
        (KeyboardInterrupt(), "^error: interrupted; rerun the same command to resume", 130),
        (_Stopped(), "^error: stopped; rerun the same command to resume", 143),
        (InputError("http://me:hunter2@host/v1?key=hunter2"), "^error: http://host/v1$", 1),
    ],
)
def test_whatever_happens_ends_in_one_line(run, monkeypatch, error, words, status):
    def audit(*_):
        raise error

    monkeypatch.setattr("cello1.cells.audit.audit", audit)
    monkeypatch.setattr("cello1.puzzles.source.find_puzzles", lambda path: path)
    code, out, err = run("audit", "a.parquet", "b.parquet")
    assert (code, out, len(err.splitlines())) == (status, "", 1)
    assert re.search(words, err.strip())
    assert "\x1b" not in err
    assert "hunter2" not in err


def test_debug_adds_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cello1", "audit", "--debug", "missing.parquet"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("error: missing.parquet does not exist")


@pytest.fixture
def heeded():
    """Undo what a shell does to its background jobs, which are deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["finaliser", "weak reference"])
def test_a_signal_in_a_finaliser_stops_all_the_same(kind, where, capsys, heeded):
    class Thing:
        def __del__(self):
            if where == "finaliser":
                signal.raise_signal(kind)

    def use():
        thing = Thing()
        watched = weakref.ref(thing, lambda _: signal.raise_signal(kind))
        if where == "finaliser":
            watched = None
        del thing
        time.sleep(5)
        return watched

    with pytest.raises((KeyboardInterrupt, _Stopped)) as stopped, _stoppable():
        use()
    assert _last_words(stopped.value)[1] == {signal.SIGTERM: 143, signal.SIGINT: 130}[kind]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_is_one_line(tmp_path, kind):
    """The puzzles come through a pipe that never ends, so that it is stopped while it works."""
    code = (
        "import sys, time, cello1.cli, cello1.puzzles.source as source\n"
        "def wait(path):\n    print('here', flush=True)\n    time.sleep(60)\n"
        "source.find_puzzles = wait\n"
        "sys.argv = ['cello1', 'audit', 'a.parquet', 'b.parquet']\n"
        "cello1.cli.main()\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A background job of a shell is deaf to SIGINT; what is tested is one in the foreground.
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, **pipes) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(kind)
        _, err = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[kind]
    assert re.fullmatch("error: (stopped|interrupted); rerun the same command to resume", err[:-1])
