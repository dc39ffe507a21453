"""Merge an adapter into a plain model: weights added, checked, and described in a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import Watch, appearing, write_atomic, write_json
from cello1.solvers.local.loading import load_adapter, load_model, model_folder
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.card import base_licence, model_card
from cello1.training.run.checkpoints import naming_disk_errors
from cello1.training.run.model_identity import RECORD, model_identity, read_record
from cello1.training.run.run_training import quiet

# Relative difference of the logits: float32 rounds at 1e-7 a step, bfloat16 at 4e-3.
_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
_PROBE = Puzzle(
    "Blood of a healthy donor.",
    (("MS4A1", "CD79A", "CD74"), ("CD3D", "CD3E", "TRAC")),
    ("T cell", "B cell"),
)


def merge(
    adapter: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    metrics: Path | None = None,
    licence: str | None = None,
    watch: Watch = lambda what, share: None,
) -> Path:
    """Add an adapter to its base and write a model folder that needs neither.

    Parameters
    ----------
    adapter
        A run folder of `cello1 sft` or `rl`, the adapter in it, or one of its checkpoints.
    out
        A new folder, which appears complete and only if the check passes.
    base
        The base model, if it was moved; by default where it was for the training.
    metrics
        A ``metrics.json`` of `cello1 eval` for the card.
    licence
        For the card; default: that of the base.
    watch
        Called with what is going on and the share done.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        When the base is not the one the adapter was trained on, something is missing, or the
        merged model disagrees with base and adapter together.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} exists and is not empty; choose another --out")
    folder = _adapter_folder(Path(adapter))
    record = read_record(folder)
    measured = None if metrics is None else _read_metrics(metrics)
    origin = model_folder(str(base or record["base"]["source"]))
    check_base(folder, record["base"], origin)
    with naming_disk_errors(out.parent), quiet(), appearing(out) as part:
        difference = _merge(folder, origin, part, watch)
        card = model_card(record, licence or base_licence(origin), measured)
        write_atomic(part / "README.md", card.encode())
        merged = {"logits_differ_by": difference, "identity": model_identity(part)}
        write_json(part / RECORD, {**record, "merged": merged})
    return out


def check_base(folder: Path, trained_on: Mapping[str, str], origin: Path) -> None:
    """Check that a base is the one an adapter was trained on.

    Raises
    ------
    InputError
        When it is another; the message says what differs.
    """
    now = model_identity(origin)
    if other := [part for part in now if now[part] != trained_on.get(part)]:
        raise InputError(
            f"{folder} was trained on another base than {origin}: {' and '.join(other)} differ; "
            f"its base was {trained_on.get('source')!r}: name where that is now with --base"
        )


def _adapter_folder(folder: Path) -> Path:
    for place in (folder, folder / "adapter"):
        if (place / "adapter_config.json").exists():
            return place
    if (folder / "model").exists() or (folder / "config.json").exists():
        raise InputError(f"{folder} is a whole model, not an adapter; there is nothing to merge")
    if (folder / "checkpoints").exists():
        raise InputError(f"the training in {folder} is not finished; run the same command again")
    raise InputError(f"{folder} holds no adapter; expected the run folder of `sft` or `rl`")


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))["overall"]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no metrics ({error}); expected the metrics.json of `cello1 eval`"
        ) from error


def _merge(folder: Path, origin: Path, part: Path, watch: Watch) -> float:
    """Write the merged model and return the relative difference of its logits."""
    import torch

    watch("merging", 0.0)
    prompter = Prompter(origin)
    prompt, _ = prompter.prompt(_PROBE)
    plain = load_model(origin, "auto")
    tuned = load_adapter(plain, folder).eval()
    with torch.inference_mode():
        expected = tuned(input_ids=torch.tensor([prompt])).logits.float()
    watch("merging", 0.4)
    merged = tuned.merge_and_unload(safe_merge=True)
    dtype = str(merged.dtype).removeprefix("torch.")
    merged.save_pretrained(part)
    prompter.tokenizer.save_pretrained(part)
    del plain, tuned, merged
    watch("merging", 0.7)
    saved: Any = load_model(part, "auto")
    with torch.inference_mode():
        found = saved(input_ids=torch.tensor([prompt])).logits.float()
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= _TOLERANCE.get(dtype, _TOLERANCE["bfloat16"]):
        raise InputError(
            f"the merged model differs from base and adapter together: its logits are "
            f"{difference:.1%} off; nothing was written"
        )
    watch("merging", 1.0)
    return difference
