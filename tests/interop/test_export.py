"""`cello1 export`: repositories that load, and an answer read back."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from cello1.cli import app
from cello1.errors import InputError, UseError
from cello1.interop.hub import export_model, export_puzzles
from cello1.puzzles.table import puzzle_from_row, read_puzzles, row_from_puzzle, write_puzzles


@pytest.fixture(scope="module")
def build(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    write_puzzles(toys[:20], folder / "train.parquet")
    write_puzzles(toys[20:], folder / "test.parquet")
    return folder


def call(*words, code=0):
    run = CliRunner().invoke(app, [str(word) for word in words])
    assert run.exit_code == code, run.output
    return run.output


def card_of(folder):
    text = (folder / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_data_set_goes_out_and_comes_back(build, toys, tmp_path):
    said = call("export", "hub", build, "--repo", "me/toys", "--out", tmp_path / "repo")
    assert "train 20, test 10" in said
    head, body = card_of(tmp_path / "repo")
    files = {f["split"]: f["path"] for f in head["configs"][0]["data_files"]}
    for split, path in files.items():
        found = read_puzzles(tmp_path / "repo" / path)
        want = read_puzzles(build / f"{split}.parquet")
        assert list(map(row_from_puzzle, found)) == list(map(row_from_puzzle, want))
    assert head["size_categories"] == ["n<1K"]
    assert head["license"] == "cc-by-4.0"
    # Both splits hold donors d0 to d4: the card says so.
    assert "| train, test | 5 |" in body
    assert "bibtex" in body


def test_datasets_loads_it_without_loss(build, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'cello1[train]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call("export", "hub", build, "--repo", "me/toys", "--out", tmp_path / "repo")
    loaded = datasets.load_dataset(str(tmp_path / "repo"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test"}
    for split in loaded:
        rows = [row_from_puzzle(puzzle_from_row(row)) for row in loaded[split]]
        assert rows == [row_from_puzzle(p) for p in read_puzzles(build / f"{split}.parquet")]


def test_croissant_validates_without_a_word(build, tmp_path, caplog):
    croissant = pytest.importorskip("mlcroissant", reason="needs mlcroissant: make test-interop")
    call("export", "hub", build, "--repo", "me/toys", "--out", tmp_path / "repo")
    data = croissant.Dataset(jsonld=str(tmp_path / "repo" / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    assert not data.metadata.ctx.issues.warnings
    rows = list(data.records("test_rows"))
    assert len(rows) == 10


def test_published_rows_without_donors_are_not_called_clean(toys, tmp_path):
    rows = [{k: row_from_puzzle(p)[k] for k in ("user_msg", "assistant_msg")} for p in toys]
    bare = [puzzle_from_row(row) for row in rows]
    splits = {"train": bare[:20], "test": bare[20:]}
    export_puzzles(splits, tmp_path / "repo", repo="me/toys", published="2026-01-01")
    _, body = card_of(tmp_path / "repo")
    assert "| train, test | unknown | unknown |" in body


def test_a_model_carries_its_results(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "training_args.bin").write_bytes(b"a pickle")
    (model / "README.md").write_text("---\nlicense: bsd-3-clause\ntags: [mine]\n---\n\n# Mine\n")
    overall = {key: {"estimate": 0.25} for key in ("batch_accuracy", "cell_accuracy")}
    run = tmp_path / "test"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({"overall": overall}))
    where = ["--repo", "me/model", "--run", run, "--out", tmp_path / "repo"]
    call("export", "hub", model, *where)
    head, body = card_of(tmp_path / "repo")
    assert head["license"] == "bsd-3-clause"
    assert "mine" in head["tags"]
    assert body.strip() == "# Mine"
    results = head["model-index"][0]["results"]
    assert {m["type"]: m["value"] for m in results[0]["metrics"]} == {
        "batch_accuracy": 0.25,
        "cell_accuracy": 0.25,
    }
    assert not (tmp_path / "repo" / "training_args.bin").exists()


def test_what_cannot_be_exported_is_said(toys, build, tmp_path):
    with pytest.raises(UseError, match="expected owner/name"):
        export_puzzles({"all": toys}, tmp_path / "a", repo="toys", published="2026-01-01")
    with pytest.raises(InputError, match="no puzzle"):
        export_puzzles({"all": []}, tmp_path / "a", repo="me/toys", published="2026-01-01")
    with pytest.raises(InputError, match="is no model"):
        export_model(build, tmp_path / "a", repo="me/toys", results={})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "precious").touch()
    with pytest.raises(InputError, match="exists"):
        export_puzzles({"all": toys}, tmp_path / "a", repo="me/toys", published="2026-01-01")
    assert not list(tmp_path.glob(".*"))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["precious"]


def test_lm_eval_and_trl_by_the_command_line(build, tmp_path):
    call("export", "lm-eval", build, "--out", tmp_path / "task")
    rows = (tmp_path / "task" / "test.jsonl").read_text().splitlines()
    assert len(rows) == 10
    call("export", "trl", build, "--split", "train", "--out", tmp_path / "train.jsonl")
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert [m["role"] for m in row["prompt"]] == ["system", "user"]


def test_answers_of_a_batch_become_a_run(build, tmp_path):
    pytest.importorskip("openai", reason="needs openai: pip install 'cello1[api]'")
    asked = tmp_path / "requests.jsonl"
    call("export", "openai-batch", build, "--model", "m", "--out", asked)
    gold = {p.id: p.answer for p in read_puzzles(build / "test.parquet")}
    lines = []
    for line in asked.read_text().splitlines():
        key = json.loads(line)["custom_id"]
        text = f"<think>x</think>\n<answer>{' | '.join(gold[key])}</answer>"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = {"choices": [choice]}
        lines.append(json.dumps({"custom_id": key, "response": {"status_code": 200, "body": body}}))
    came = tmp_path / "answers.jsonl"
    came.write_text("\n".join(lines[:-1]))
    owed = call("solve", build, "--from-batch", came, "--out", tmp_path / "run", code=1)
    assert "1 puzzles are unanswered" in owed
    evaluated = json.loads(call("eval", tmp_path / "run", "--json"))
    overall = evaluated["runs"]["run"]["overall"]
    assert (overall["n"], overall["batch_accuracy"]["estimate"]) == (9, 1.0)
