"""Find puzzles: in a file, a folder of any common layout, or on the Hugging Face hub.

All commands find puzzles here. A source is

* a file (.parquet, .json, .jsonl), or several by a pattern such as ``data/train-*.parquet``;
* a folder of `cello1 build`, with a file for each split;
* a folder saved by `datasets`, of one split (Dataset) or of several (DatasetDict);
* a folder laid out like the hub: files in the root or in ``data/``, named by their split, in one
  file or in shards (``train-00000-of-00002.parquet``), or as listed in the README's ``configs``;
* a name on the hub, ``OWNER/NAME``, also with a revision: ``OWNER/NAME@REVISION``.

``SOURCE:SPLIT`` names a split where there is no option for it, as in recipes. If a README has
several configurations, splits of those other than the default are named ``CONFIG/SPLIT``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cello1.errors import InputError, UseError
from cello1.hub import is_hub_name, snapshot
from cello1.runs import named_files

SUFFIXES = (".parquet", ".json", ".jsonl", ".ndjson")
SPLIT_NAMES = ("all", "train", "validation", "test", "unseen")
_WANTED = ["README.md", "*.parquet", "*.json", "*.jsonl", "*.ndjson", "*.arrow"]
_ADDRESS = re.compile(r"(?:hf:/+datasets/|https?:/+huggingface\.co/datasets/)(.+?)/*")
_SHARD = re.compile(r"(.+?)-(\d{3,})-of-\d{3,}(?:-[0-9a-f]+)?")
_OTHER_NAMES = {
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "testing": "test",
}
_NO_PUZZLES = ("dataset_info", "dataset_infos", "dataset_dict", "state", "run", "build", "metrics")


def find_puzzles(
    source: str | Path, split: str | None = None, *, revision: str | None = None
) -> Path:
    """Return the path of one split, for :func:`cello1.read_puzzles` and run folders.

    Parameters
    ----------
    source
        Where the puzzles are.
    split
        Which split of a source with several; unsplit sources have ``all``.
    revision
        Branch, tag or commit of a name on the hub.

    Raises
    ------
    UseError
        When there are several splits and none, or an unknown one, is named.
    InputError
        When there are no puzzles.
    """
    source, named = _split_named(str(source))
    splits = find_splits(source, revision=revision)
    wanted = named or split
    if wanted in splits:
        return splits[wanted]
    if named is None and "all" in splits:
        return splits["all"]
    if wanted is None and len(splits) == 1:
        return next(iter(splits.values()))
    has = f"{source} has {'the splits ' if len(splits) > 1 else ''}{', '.join(splits)}"
    if wanted is None:
        raise UseError(f"{has}; name one: --split, or {source}:{next(iter(splits))}")
    raise UseError(f"{source} has no split {wanted!r}; it has {', '.join(splits)}")


def find_splits(source: str | Path, *, revision: str | None = None) -> dict[str, Path]:
    """Return the path of every split; a file, or a folder of one split, is ``all``.

    Raises
    ------
    InputError
        When there are no puzzles.
    """
    root = _root(_split_named(str(source))[0], revision)
    if not root.is_dir():
        return {"all": root}
    if (root / "dataset_dict.json").exists():
        return {name: root / name for name in _saved_splits(root)}
    if (root / "dataset_info.json").exists() and any(root.glob("*.arrow")):
        return {"all": root}
    built = {name: root / f"{name}.parquet" for name in SPLIT_NAMES}
    if built := {name: path for name, path in built.items() if path.exists()}:
        return built
    if splits := _told(root) or _seen(root):
        return splits
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "nothing"
    raise InputError(
        f"{source} holds no puzzles (in it: {inside}); expected train.parquet, test.parquet, ..., "
        "a folder saved by datasets, or one laid out like the hub (data/train-*.parquet)"
    )


def _split_named(source: str) -> tuple[str, str | None]:
    """Split ``SOURCE:SPLIT``; a source that exists by its full name names no split."""
    head, colon, split = source.rpartition(":")
    if not colon or not split or split.startswith("/") or len(head) < 2 or _there(source):
        return source, None
    return head, split


def _there(source: str) -> bool:
    try:
        return any(path.exists() for path in named_files(Path(source)))
    except (OSError, ValueError):
        return False


def _root(source: str, revision: str | None) -> Path:
    """Return the file, pattern or folder of a source."""
    path = Path(source)
    if _there(source) or path.is_dir():
        if revision is not None:
            raise UseError(f"{source} is on this machine; only names on the hub have revisions")
        return path
    address = _ADDRESS.fullmatch(source)
    name, _, at = (address[1] if address else source).partition("@")
    # A name whose first part is a local folder is a mistyped path.
    local = not address and (path.suffix in SUFFIXES or Path(path.parts[0]).exists())
    if local or not is_hub_name(name):
        raise InputError(
            f"{source} does not exist; expected a file of puzzles ({', '.join(SUFFIXES)}), a "
            "folder of them, or a name on the Hugging Face hub such as ncbi/CellPuzzles"
        )
    return snapshot(name, "dataset", revision=revision or at or None, patterns=_WANTED)


def _saved_splits(root: Path) -> list[str]:
    """Return the splits of a DatasetDict."""
    try:
        names = json.loads((root / "dataset_dict.json").read_text("utf-8"))["splits"]
        sound = [str(name) for name in names if (root / str(name)).is_dir()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{root / 'dataset_dict.json'} cannot be read: {error}") from error
    if not sound:
        raise InputError(f"{root} was saved by datasets, but its splits are missing")
    return sound


def _told(root: Path) -> dict[str, Path]:
    """Return the splits that the header of the README lists, if any."""
    readme = root / "README.md"
    if not readme.is_file():
        return {}
    parts = readme.read_text("utf-8-sig", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        header = yaml.safe_load(parts[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"the header of {readme} is not valid YAML: {error}") from error
    configs = header.get("configs") if isinstance(header, Mapping) else None
    configs = [c for c in configs if isinstance(c, Mapping)] if isinstance(configs, list) else []
    default = next(
        (c for c in configs if c.get("default") is True or c.get("config_name") == "default"),
        configs[0] if len(configs) == 1 else None,
    )
    found: dict[str, Path] = {}
    for config in configs:
        prefix = "" if config is default else f"{config.get('config_name')}/"
        folder = root / _inside(root, config.get("data_dir") or ".")
        files = config.get("data_files")
        splits = _listed(root, folder, files) if files else _seen(folder)
        found |= {f"{prefix}{split}": path for split, path in splits.items()}
    return found


def _listed(root: Path, folder: Path, files: Any) -> dict[str, Path]:
    """Read ``data_files``: a pattern, a list of patterns, or a mapping of splits to patterns."""
    if isinstance(files, Mapping):
        entries = list(files.items())
    elif isinstance(files, list) and all(isinstance(f, Mapping) for f in files):
        entries = [(f.get("split", "train"), f.get("path")) for f in files]
    else:
        entries = [("train", files)]
    found = {}
    for split, paths in entries:
        patterns = [paths] if isinstance(paths, str) else list(paths or ())
        for pattern in patterns:
            _inside(root, pattern)
        one = f"{{{','.join(map(str, patterns))}}}" if len(patterns) != 1 else str(patterns[0])
        path = folder / one
        if not _there(str(path)):
            raise InputError(
                f"README.md of {root} names {', '.join(map(str, patterns))} for split {split}, "
                "but there is no such file; was everything downloaded?"
            )
        found[str(split)] = path
    return found


def _inside(root: Path, name: Any) -> str:
    """Check that a README refers only to files inside its own folder."""
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"README.md of {root} names {name}, which is outside its folder")
    return str(name)


def _seen(root: Path) -> dict[str, Path]:
    """Return the splits by the names of files and folders, as `datasets` does."""
    found: dict[str, Path] = {}
    for folder in (root, root / "data"):
        if not folder.is_dir():
            continue
        found |= _splits_in(folder)
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            name = _OTHER_NAMES.get(inner.name, inner.name)
            if name in SPLIT_NAMES and (files := _puzzle_files(inner)):
                found.setdefault(name, inner / f"*{files[0].suffix}")
    return found


def _splits_in(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _puzzle_files(folder):
        shard = _SHARD.fullmatch(path.stem)
        name = shard[1] if shard else path.stem
        where = path.with_name(f"{name}-*-of-*{path.suffix}") if shard else path
        found.setdefault(_OTHER_NAMES.get(name, name), where)
    return found


def _puzzle_files(folder: Path) -> Sequence[Path]:
    """Return the files of the best available kind that may hold puzzles."""
    for suffixes in ((".parquet",), (".jsonl", ".ndjson"), (".json",)):
        files = [path for path in sorted(folder.iterdir()) if path.suffix in suffixes]
        if files := [p for p in files if p.is_file() and p.stem not in _NO_PUZZLES]:
            return files
    return []
