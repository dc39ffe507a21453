"""Convert a sharded checkpoint of verl, of any number of GPUs, to a Hugging Face folder.

Every process of an FSDP training saves its part of every weight, with a record of how the parts
fit together (`torch.distributed.tensor`). Nothing else is needed, neither a GPU nor verl. The files
are pickles, as verl writes them; they are read with `weights_only`, which runs none of their code.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from transformers import AutoModelForCausalLM

from cello1.errors import InputError, first_line
from cello1.runs import appearing, write_json
from cello1.solvers.local.loading import load_config
from cello1.training.run.model_identity import RECORD

Tensor = torch.Tensor
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


def convert_verl(
    checkpoint: Path,
    out: Path,
    *,
    record: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Assemble the weights of a checkpoint and write them as a model folder.

    Parameters
    ----------
    checkpoint
        A `global_step_N` of verl, or the `actor` in it.
    out
        A new folder, which appears complete.
    record
        Record of the training, for `training.json`.
    dtype
        Dtype of the weights; by default bfloat16, in which verl samples.

    Raises
    ------
    InputError
        When a shard is missing or damaged, or the weights do not fit the configuration.
    """
    folder = checkpoint / "actor" if (checkpoint / "actor").is_dir() else checkpoint
    if not (folder / "huggingface" / "config.json").exists():
        raise InputError(f"{folder} has no huggingface/config.json; expected a checkpoint of verl")
    if out.exists():
        raise InputError(f"{out} exists; choose another place, or remove it")
    weights = read_shards(folder, dtype)
    config = load_config(folder / "huggingface")
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    tied = set(model.all_tied_weights_keys)
    wanted, found = set(dict(model.named_parameters(remove_duplicate=False))), set(weights)
    if missing := sorted(wanted - found - tied):
        raise InputError(f"{folder} lacks {len(missing)} weights, such as {missing[0]}")
    if foreign := sorted(found - set(model.state_dict())):
        raise InputError(
            f"{folder} has {len(foreign)} weights that its config.json does not know, such as "
            f"{foreign[0]}; adapters have to be merged by verl (actor_rollout_ref.model.lora)"
        )
    with appearing(out) as part:
        model.save_pretrained(part, state_dict={k: w for k, w in weights.items() if k not in tied})
        for path in sorted((folder / "huggingface").iterdir()):
            if path.is_file() and not (part / path.name).exists():
                shutil.copyfile(path, part / path.name)
        if record is not None:
            write_json(part / RECORD, record)
    return out


def read_shards(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the parts of all processes and assemble every weight.

    Raises
    ------
    InputError
        When a part is missing, damaged, or of another training.
    """
    shards = []
    for path in _shard_files(folder):
        try:
            shards.append(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path} cannot be read as a shard of weights ({first_line(error)})"
            ) from error
    names = set(shards[0])
    if any(set(shard) != names for shard in shards):
        raise InputError(f"the shards in {folder} hold different weights; they are of several runs")
    return {
        name: _join([shard.pop(name) for shard in shards], name).to(dtype) for name in sorted(names)
    }


def _shard_files(folder: Path) -> list[Path]:
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob("model_world_size_*.pt"):
        if match := _SHARD.fullmatch(path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    if len(found) != 1:
        said = f"of trainings on {sorted(found)} GPUs" if found else "none"
        raise InputError(f"{folder} must hold the shards of one training; it holds {said}")
    ((size, files),) = found.items()
    if missing := sorted(set(range(size)) - set(files)):
        raise InputError(f"{folder} lacks the shards of processes {missing} of {size}")
    return [files[rank] for rank in range(size)]


def _join(parts: list[Tensor], name: str) -> Tensor:
    """Join the parts of one weight; a plain tensor is complete in every process."""
    first = parts[0]
    if not isinstance(first, DTensor):
        if any(part.shape != first.shape or not torch.equal(part, first) for part in parts):
            raise InputError(f"{name} differs between processes though it is not sharded")
        return first
    local = {rank: part.to_local() for rank, part in enumerate(parts)}  # type: ignore[attr-defined]
    joined = _assemble(local, first.device_mesh.mesh, first.placements, name)
    if joined.shape != first.shape:
        raise InputError(
            f"the parts of {name} make {tuple(joined.shape)}, not {tuple(first.shape)}"
        )
    return joined.contiguous()


def _assemble(
    parts: dict[int, Tensor], mesh: Tensor, placements: Sequence[Placement], name: str
) -> Tensor:
    """Join parts along the first dimension of the mesh, each joined along the others first."""
    if mesh.ndim == 0:
        return parts[int(mesh)]
    how = placements[0]
    if isinstance(how, Replicate):
        return _assemble(parts, mesh[0], placements[1:], name)
    if type(how) is not Shard:
        raise InputError(f"{name} is laid out as {how}, which cannot be put together here")
    rows = [_assemble(parts, row, placements[1:], name) for row in mesh]
    return torch.cat(rows, dim=how.dim)
