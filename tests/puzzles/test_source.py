"""Puzzles are found wherever they lie, by every verb alike."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_toys import toy_puzzle

from cello1.errors import InputError, UseError
from cello1.puzzles.source import find_puzzles, find_splits
from cello1.puzzles.table import read_puzzles, row_from_puzzle, write_puzzles
from cello1.runs import file_hash

PUBLISHED = ("system_msg", "user_msg", "assistant_msg")
SPLITS = {
    "train": [toy_puzzle(seed, n=3) for seed in range(9)],
    "test": [toy_puzzle(seed, n=3) for seed in range(20, 24)],
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def rows(puzzles):
    """Write puzzles in the three published columns, which tell no donor."""
    return [{name: row_from_puzzle(p)[name] for name in PUBLISHED} for p in puzzles]


def parquet(path, puzzles):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows(puzzles)), path)


def json_lines(path, puzzles):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(puzzles)))


def build_folder(root):
    for name, puzzles in SPLITS.items():
        write_puzzles(puzzles, root / f"{name}.parquet")


def hub_parquet(root):
    for name, puzzles in SPLITS.items():
        parquet(root / "data" / f"{name}-00000-of-00001.parquet", puzzles)
    (root / "README.md").write_text("---\nlicense: mit\n---\n# Cells\n")
    (root / ".gitattributes").write_text("")


def hub_shards(root):
    parquet(root / "data" / "train-00000-of-00002.parquet", SPLITS["train"][:4])
    parquet(root / "data" / "train-00001-of-00002.parquet", SPLITS["train"][4:])
    parquet(root / "data" / "test-00000-of-00001.parquet", SPLITS["test"])


def hub_lines(root):
    json_lines(root / "train.jsonl", SPLITS["train"])
    json_lines(root / "test.jsonl", SPLITS["test"])
    (root / "dataset_infos.json").write_text("{}")


def hub_folders(root):
    json_lines(root / "training" / "part-1.jsonl", SPLITS["train"][:2])
    json_lines(root / "training" / "part-2.jsonl", SPLITS["train"][2:])
    json_lines(root / "test" / "all.jsonl", SPLITS["test"])


def hub_configs(root):
    parquet(root / "parts" / "one.parquet", SPLITS["train"][:5])
    parquet(root / "parts" / "two.parquet", SPLITS["train"][5:])
    parquet(root / "parts" / "held.parquet", SPLITS["test"])
    json_lines(root / "told" / "train.jsonl", SPLITS["train"][:2])
    (root / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: reasoning\n  data_dir: told\n"
        "- config_name: default\n  data_files:\n"
        "  - split: train\n    path: ['parts/one.parquet', 'parts/t*.parquet']\n"
        "  - split: test\n    path: parts/held.parquet\n---\n"
    )


def saved(root):
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_list(rows(ps)) for name, ps in SPLITS.items()}
    datasets.DatasetDict(parts).save_to_disk(root)


LAYOUTS = [build_folder, hub_parquet, hub_shards, hub_lines, hub_folders, hub_configs, saved]


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def folder(request, tmp_path):
    root = tmp_path / "cells [odd] name"
    root.mkdir()
    request.param(root)
    return root


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The hub's cache, with a data set in it; the hub itself is not reached."""
    from huggingface_hub import constants

    repository = tmp_path / "cache" / "datasets--ncbi--CellPuzzles"
    hub_parquet(repository / "snapshots" / COMMIT)
    other = repository / "snapshots" / COMMIT[::-1]
    parquet(other / "data" / "test-00000-of-00001.parquet", SPLITS["test"][:1])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v0").write_text(COMMIT[::-1])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    # The default of an argument was bound when the client was imported.
    import huggingface_hub._snapshot_download as client

    real = client.snapshot_download

    def download(*given, **named):
        return real(*given, cache_dir=str(tmp_path / "cache"), **named)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return run


def questions(puzzles):
    return sorted((p.cells, p.answer) for p in puzzles)


def test_every_layout_is_read_split_by_split(folder):
    splits = find_splits(folder)
    assert {"train", "test"} <= set(splits)
    for name, puzzles in SPLITS.items():
        for read in (
            read_puzzles(folder, name),
            read_puzzles(f"{folder}:{name}"),
            read_puzzles(find_puzzles(folder, name)),
            read_puzzles(splits[name]),
        ):
            assert questions(read) == questions(puzzles)
    with pytest.raises(UseError, match="has no split 'dev'; it has"):
        find_puzzles(folder, "dev")
    with pytest.raises(UseError, match="name one"):
        read_puzzles(folder)


def test_other_configurations_are_splits_of_longer_names(tmp_path):
    hub_configs(tmp_path)
    assert list(find_splits(tmp_path)) == ["reasoning/train", "train", "test"]
    assert questions(read_puzzles(tmp_path, "reasoning/train")) == questions(SPLITS["train"][:2])


def test_a_saved_dataset_of_one_split_needs_no_name(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows(SPLITS["test"])).save_to_disk(tmp_path / "saved")
    for split in (None, "test", "train"):
        assert questions(read_puzzles(tmp_path / "saved", split)) == questions(SPLITS["test"])


def test_the_hash_of_several_files_is_that_of_their_content(tmp_path):
    hub_shards(tmp_path / "a")
    path = find_puzzles(tmp_path / "a", "train")
    first = file_hash(path)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert file_hash(find_puzzles(tmp_path / "b", "train")) == first
    parquet(tmp_path / "b" / "data" / "train-00001-of-00002.parquet", SPLITS["train"][5:])
    assert file_hash(find_puzzles(tmp_path / "b", "train")) != first


@pytest.mark.parametrize(
    "source",
    [
        "ncbi/CellPuzzles",
        "hf://datasets/ncbi/CellPuzzles",
        "https://huggingface.co/datasets/ncbi/CellPuzzles",
    ],
)
def test_a_name_on_the_hub_is_found_in_its_cache(cached, source):
    assert questions(read_puzzles(source, "test")) == questions(SPLITS["test"])
    assert len(read_puzzles(source, "test", revision="v0")) == 1
    assert len(read_puzzles(f"{source}@v0", "test")) == 1
    assert len(read_puzzles(f"{source}@v0:test")) == 1
    assert COMMIT in str(find_puzzles(source, "train"))
    with pytest.raises(InputError, match="at revision v9 here, and the Hugging Face hub cannot"):
        read_puzzles(source, "test", revision="v9")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no/Such", "there is no dataset no/Such here, and the Hugging Face hub cannot be reached"),
        ("here/puzzles", "here/puzzles does not exist; expected a file of puzzles"),
        ("no/such.parquet", "does not exist"),
        ("nothing", "does not exist"),
        ("a/b/c", "does not exist"),
        ("../../x", "does not exist"),
        ("x:", "does not exist"),
        ("data/*.parquet", "does not exist"),
    ],
)
def test_what_is_nowhere_is_said_at_once(cached, tmp_path, monkeypatch, source, said):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        read_puzzles(source)


def test_only_the_hub_has_revisions(tmp_path):
    hub_parquet(tmp_path)
    with pytest.raises(UseError, match="only names on the hub have revisions"):
        read_puzzles(tmp_path, "test", revision="v0")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("configs: [{config_name: a, data_files: /etc/passwd}]", "outside its folder"),
        ("configs: [{config_name: a, data_files: ../x.parquet}]", "outside its folder"),
        ("configs: [{config_name: a, data_dir: ../..}]", "outside its folder"),
        ("configs: [{config_name: a, data_files: gone-*.parquet}]", "there is no such file"),
        ("configs: [", "not valid YAML"),
        ("configs: " + "[" * 5_000, "not valid YAML"),
    ],
)
def test_a_readme_of_somebody_else_leads_nowhere(tmp_path, header, said):
    hub_parquet(tmp_path / "r")
    (tmp_path / "x.parquet").write_bytes(b"")
    (tmp_path / "r" / "README.md").write_text(f"---\n{header}\n---\n")
    with pytest.raises(InputError, match=said):
        find_splits(tmp_path / "r")


@pytest.mark.parametrize("content", ["[]", "{}", '{"splits": ["x"]}', "[" * 5_000])
def test_a_damaged_dataset_dict_is_named(tmp_path, content):
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset_dict\.json|its splits are missing"):
        find_splits(tmp_path)


def test_the_line_takes_every_layout(run, folder, tmp_path):
    code, _, err = run("solve", folder, "--solver", "chance", "--out", "a")
    assert (code, err) == (0, "")
    assert run("solve", folder, "--solver", "centroids", "--out", "b")[0] == 0
    code, out, _ = run("eval", "a", "b", "--json")
    assert json.loads(out)["runs"]["a"]["overall"]["n"] == 4
    assert run("report", "a", "b")[0] == 0
    code, out, _ = run("audit", folder, "--json")
    found = json.loads(out)
    assert found["sizes"]["train"] == 9
    told = "donor_id" in pq.read_schema(p).names if (p := folder / "test.parquet").exists() else 0
    assert found["unknown"] == ([] if told else ["donors", "cells"])
    assert run("distill", folder, "--teacher", "markers", "--out", "t")[0] in (0, 1)
    assert json.loads((tmp_path / "t" / "run.json").read_text())["command"] == "distill"
    # Moved puzzles are found again, whichever split it was.
    moved = folder.rename(tmp_path / "moved")
    assert "no longer at" in run("eval", "a")[2]
    assert run("eval", "a", "--puzzles", moved)[0] == 0


def test_the_line_takes_a_name_on_the_hub(run, cached, tmp_path):
    code, _, err = run("solve", "ncbi/CellPuzzles", "--split", "test", "--solver", "chance",
                       "--out", "a")  # fmt: skip
    assert (code, err) == (0, "")
    assert run("eval", "a")[0] == 0
    code, out, _ = run("audit", "ncbi/CellPuzzles", "--revision", "main")
    assert code == 0
    assert "leaks unknown: the puzzles do not tell their donors" in " ".join(out.split())
    assert "0 leaks" not in out
    assert run("solve", "ncbi/CellPuzzles", "--revision", "v0", "--solver", "chance",
               "--out", "b")[0] == 0  # fmt: skip
    assert len((tmp_path / "b" / "responses.jsonl").read_text().splitlines()) == 1


def test_trainings_take_every_layout(folder):
    from cello1.training.run.data import input_files, read_answered

    named = f"{folder}:train"
    for source in (str(folder), named):
        assert questions(read_answered(source)) == questions(SPLITS["train"])
    files = input_files([named], f"{folder}:test", "puzzles")
    assert len({file_hash(file) for file in files}) == 2
