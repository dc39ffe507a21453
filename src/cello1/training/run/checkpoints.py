"""Find complete checkpoints, choose one to resume from, and export the best model."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cello1.errors import InputError, first_line
from cello1.runs import appearing, open_plain, write_atomic, write_json
from cello1.training.run.model_identity import RECORD

STATE = "state.safetensors"  # of a pre-training, all in one file
# Written last: a folder without it is incomplete.
_LAST = "trainer_state.json"
_NOT_PUBLISHED = ("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "README")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What libraries say about a failed write without naming its cause.
_DISK_SIGNS = (
    "No space left", "os error 28", "os error 27", "PytorchStreamWriter", "inline_container",
    "iostream", "File too large", "quota",
)  # fmt: skip
_FULL_BYTES = 1 << 20


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    return sorted((p for p in folder.glob("checkpoint-*") if (p / _LAST).exists()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its name."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def clear_torn(folder: Path) -> None:
    """Remove checkpoints that were being written when the process died."""
    for path in folder.glob("checkpoint-*"):
        if not (path / _LAST).exists():
            shutil.rmtree(path, ignore_errors=True)


def unmark(checkpoint: Path) -> None:
    """Mark a checkpoint that is about to be rewritten as incomplete."""
    (checkpoint / _LAST).unlink(missing_ok=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read the state of the trainer.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    try:
        state = json.loads((checkpoint / _LAST).read_text("utf-8"))
        steps = (state["global_step"], state["max_steps"])
        if not all(type(step) is int for step in steps):
            raise ValueError(f"steps are {steps}")
        if not all(type(entry["step"]) is int for entry in state["log_history"]):
            raise ValueError("log_history has entries without a step")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(checkpoint / _LAST, error) from error
    return state  # type: ignore[no-any-return]


def check_checkpoint(checkpoint: Path) -> None:
    """Check that a checkpoint can be read before a model is loaded for it.

    Raises
    ------
    InputError
        When one of its files is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    for path in sorted(checkpoint.iterdir()):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
            elif path.name in ("optimizer.pt", "scheduler.pt"):
                torch.load(path, map_location="meta", weights_only=True, mmap=True)
            elif path.name.startswith("rng_state"):
                with zipfile.ZipFile(path) as archive:
                    archive.testzip()
        except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError,
                pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged ({first_line(error)}); remove the folder {path.parent} and rerun the "
        "same command: it resumes from an older checkpoint, or starts over"
    )


def best_checkpoint(folder: Path, best_step: int | None) -> Path:
    """Return the checkpoint of the best evaluation, or the newest where none was evaluated.

    Raises
    ------
    InputError
        When it is missing.
    """
    found = {step_of(path): path for path in checkpoints(folder)}
    step = best_step if best_step is not None else max(found, default=-1)
    if step not in found:
        raise InputError(
            f"the checkpoint of step {step} is missing in {folder}; it holds {sorted(found)}"
        )
    return found[step]


def publish(checkpoint: Path, out: Path, record: dict[str, Any]) -> None:
    """Copy the model of a checkpoint, without what only training needs; `out` appears complete.

    Raises
    ------
    InputError
        When the checkpoint holds no complete weights.
    """
    if not any(checkpoint.glob("*.safetensors")):
        raise InputError(
            f"{checkpoint} has no *.safetensors: with FSDP, save whole weights by setting "
            "fsdp_state_dict_type: FULL_STATE_DICT for accelerate"
        )
    with appearing(out) as part:
        for path in sorted(checkpoint.iterdir()):
            if path.is_file() and not path.name.startswith(_NOT_PUBLISHED):
                shutil.copyfile(path, part / path.name)
        write_json(part / RECORD, record)


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of a log beyond the checkpoint that training resumes from."""
    if not path.exists():
        return
    kept = []
    with open_plain(path) as file:
        lines = file.readlines()
    for line in lines:
        try:
            if json.loads(line).get("step", 0) > step:
                break
        except (ValueError, AttributeError, TypeError):  # a torn line
            break
        kept.append(line)
    write_atomic(path, b"".join(kept))


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the many ways in which libraries fail on a full disk into one clear error.

    Parameters
    ----------
    folder
        Where a training, or its checkpoints, are written.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises no more special one
        free = _free(folder)
        if not (_is_of_disk(error) or free < _FULL_BYTES):
            raise
        places = folder if folder.name == "checkpoints" else folder / "checkpoints"
        clear_torn(places)  # it takes space, and nothing can resume from it
        kept = [path.name for path in (*checkpoints(places), *folder.glob(STATE))]
        what = getattr(error, "filename", None) or folder
        raise InputError(
            f"{what} could not be written ({first_line(error)}; {free / 1e6:,.0f} MB free); make "
            "room and run the same command again: it resumes from the newest complete checkpoint "
            f"(present: {', '.join(kept) or 'none yet'})"
        ) from error


def _is_of_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRORS
    return any(sign in str(error) for sign in _DISK_SIGNS)


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
