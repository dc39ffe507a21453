"""Checkpoints: which is whole, which to go on from, and how the last word gets out of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.runs import write_atomic, write_json
from cello1.training.run.lineage import RECORD

LOG = "log.jsonl"
STATE = "state.safetensors"  # of a pre-training, all in one file
# The trainer writes this file last: a folder without it was cut off.
_LAST = "trainer_state.json"
_NEEDLESS = ("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "README")
_DISK_SIGNS = ("No space left", "os error 28", "PytorchStreamWriter", "File too large", "quota")


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if (p / _LAST).exists()]
    return sorted(found, key=_step)


def clear_torn(folder: Path) -> None:
    """Remove checkpoints that were being written when the process died."""
    for path in folder.glob("checkpoint-*"):
        if not (path / _LAST).exists():
            shutil.rmtree(path)


def unmark(checkpoint: Path) -> None:
    """Let a checkpoint that is about to be written again count as torn until it is whole."""
    (checkpoint / _LAST).unlink(missing_ok=True)


def best_checkpoint(folder: Path, best_step: int | None) -> Path:
    """Return the checkpoint of the best evaluation, or the newest where none was evaluated.

    Raises
    ------
    InputError
        When it is gone.
    """
    found = {_step(path): path for path in checkpoints(folder)}
    step = best_step if best_step is not None else max(found, default=-1)
    if step not in found:
        raise InputError(
            f"the checkpoint of step {step} is missing in {folder}; it holds {sorted(found)}"
        )
    return found[step]


def publish(checkpoint: Path, out: Path, record: dict[str, Any]) -> None:
    """Copy a checkpoint's model, without what only training needs; `out` appears whole.

    Raises
    ------
    InputError
        When the checkpoint has no weights in one piece.
    """
    if not any(checkpoint.glob("*.safetensors")):
        raise InputError(
            f"{checkpoint} has no *.safetensors: with FSDP, save whole weights by setting "
            "fsdp_state_dict_type: FULL_STATE_DICT for accelerate"
        )
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and not path.name.startswith(_NEEDLESS):
            shutil.copyfile(path, part / path.name)
    write_json(part / RECORD, record)
    part.rename(out)


def cut_log(path: Path, step: int) -> None:
    """Drop what a log says of steps behind the checkpoint that training goes on from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if json.loads(line).get("step", 0) > step:
                break
        except ValueError:  # a torn line
            break
        kept.append(line)
    write_atomic(path, b"".join(kept))


@contextmanager
def telling_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the many ways libraries fail on a full disk into one clear error."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not (isinstance(error, OSError) or any(sign in str(error) for sign in _DISK_SIGNS)):
            raise
        whole = [*checkpoints(folder), *folder.glob(STATE)]
        kept = ", ".join(path.name for path in whole) or "none yet"
        raise InputError(
            f"a checkpoint could not be written to {folder} ({error}); make room and run the same "
            f"command again: it goes on from the newest whole checkpoint (there: {kept})"
        ) from error


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def steps_of(found: Sequence[Path]) -> list[int]:
    """Return the steps of checkpoints."""
    return [_step(path) for path in found]
