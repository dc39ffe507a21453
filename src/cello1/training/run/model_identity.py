"""Identify a model, and read how it was trained."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from cello1.errors import InputError, first_line

RECORD = "training.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
# What a library may rewrite in config.json without making it another model.
_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
_SAMPLED_BYTES = 4_096


def model_identity(folder: Path) -> dict[str, str]:
    """Return what identifies a model: hashes of its config, tokenizer and weights.

    Of the weights, names, shapes and the beginning of every tensor are hashed, so that two models
    of one architecture differ and 15 GB need not be read.

    Raises
    ------
    InputError
        When there are no weights, or a file is damaged.
    """
    return {**shape_identity(folder), "weights": _weights_hash(folder)}


def shape_identity(folder: Path) -> dict[str, str]:
    """Return the part of :func:`model_identity` that a folder without weights has."""
    config = _read_object(folder / "config.json")
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    names = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model")
    digest = hashlib.sha256()
    for path in (folder / name for name in names):
        if path.exists():
            digest.update(path.read_bytes())
    text = json.dumps(kept, sort_keys=True)
    return {
        "config": hashlib.sha256(text.encode()).hexdigest(),
        "tokenizer": digest.hexdigest(),
    }


def _weights_hash(folder: Path) -> str:
    from safetensors import SafetensorError, safe_open

    from cello1.solvers.local.loading import refuse_pickles

    refuse_pickles(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no weights (*.safetensors)")
    parts = []
    for path in files:
        try:
            with safe_open(path, framework="pt") as file, path.open("rb") as raw:
                names = file.keys()
                start = 8 + int.from_bytes(raw.read(8), "little")
                header = json.loads(raw.read(start - 8))
                for name in names:
                    entry = header[name]
                    first, last = entry["data_offsets"]
                    raw.seek(start + first)
                    content = raw.read(min(_SAMPLED_BYTES, last - first))
                    sample = hashlib.sha256(content).hexdigest()
                    parts.append(f"{name} {entry['dtype']} {entry['shape']} {sample}")
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def versions(*names: str) -> dict[str, str]:
    """Return the versions of the libraries that train."""
    return {name: metadata.version(name) for name in names or _PACKAGES}


def read_record(folder: Path) -> dict[str, Any]:
    """Read what a training left beside its model: in the folder, or up to two above it.

    Raises
    ------
    InputError
        When there is none, or it is damaged.
    """
    for place in (folder, folder.parent, folder.parent.parent):
        if (place / RECORD).exists():
            record = _read_object(place / RECORD)
            for key in ("settings", "versions"):
                if not isinstance(record.get(key), dict):
                    raise InputError(f"{place / RECORD} is damaged: {key!r} is missing in it")
            return record
    raise InputError(
        f"{folder} has no {RECORD}, so the base of its adapter is unknown; expected "
        "the run folder of `cello1 sft` or `cello1 rl`, or the adapter in it"
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({first_line(error)}); expected JSON") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: expected a JSON object")
    return content
