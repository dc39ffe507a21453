"""Reinforcement learning on a cluster: verl does the work, on files written here.

A run folder gets the puzzles as verl's Parquet, a file with the reward, and the whole Hydra
configuration, composed and checked by the installed verl. Then verl is started on Ray, on this
machine or on a cluster, and its best checkpoint becomes a Hugging Face folder. The paper trained
Cell-o1 with these settings on 2 nodes of 8 GPUs (arXiv 2506.02911, section 4).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cello1.errors import InputError, UseError
from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import gold_message, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import VerlSettings
from cello1.runs import Watch, write_atomic, write_json
from cello1.solvers.local.loading import model_folder
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.data import read_rl_data, rl_files
from cello1.training.rl.verl.config import compose, need_verl
from cello1.training.rl.verl.convert import convert_verl
from cello1.training.run.model_identity import RECORD, read_record
from cello1.training.run.run_training import claim, new_record, run_training

SOURCE = "cello1"  # of every row, for verl
_CONFIG = "config.yaml"
_LATEST = "latest_checkpointed_iteration.txt"
_SCORE = "val-core/cello1/acc/mean@1"
_REWARD = '''"""The reward that verl pays; the one scorer of cello1 is behind it."""

from functools import partial

from cello1.scoring.reward_verl import compute_score as _compute_score

compute_score = partial(_compute_score, reward={reward!r})
'''
_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("id", pa.string()),
                    ("candidates", pa.list_(pa.string())),
                    ("opened", pa.bool_()),
                ]
            ),
        ),
    ]
)


def verl(
    settings: VerlSettings, out: str | Path, *, watch: Watch = lambda what, share: None
) -> Path:
    """Train a model by verl, which resumes from its own checkpoints.

    See :func:`cello1.training.rl.rl.rl`. On a cluster every node must see the run folder.
    """
    folder = Path(out)
    need_verl()
    if not settings.address:
        _need_gpus(settings.gpus)
    record, base = _record(settings)

    def train() -> None:
        watch("preparing", 0.0)
        _write(settings, folder, record, base)
        watch("training by verl; it logs to the screen and to logs/", 0.0)
        _start(folder)
        watch("converting", 0.9)

    return run_training(
        folder,
        record,
        inputs=rl_files(settings),
        train=train,
        publish=lambda final: _publish(folder, final),
        finished_by="checkpoints",
    )


def prepare_verl(settings: VerlSettings, out: str | Path) -> list[str]:
    """Write everything verl needs, and return the command that starts it.

    Raises
    ------
    InputError
        When something cannot be used.
    """
    need_verl()
    record, base = _record(settings)
    with claim(Path(out), record, rl_files(settings), "checkpoints"):
        _write(settings, Path(out), record, base)
    return _command(Path(out))


def _record(settings: VerlSettings) -> tuple[dict[str, Any], Path]:
    """Return the initial record, and the folder of the base model."""
    if not settings.model:
        raise UseError("no model is named to start from; add model=DIR, or verl.model")
    base = model_folder(settings.model)
    packages = ("verl", "ray", "torch")
    return new_record("rl", settings, base, engine="verl", packages=packages), base


def _write(settings: VerlSettings, folder: Path, record: dict[str, Any], base: Path) -> None:
    """Write Parquet, reward, configuration and record."""
    from omegaconf import OmegaConf

    prompter = Prompter(base)
    context = settings.max_prompt + settings.max_response
    data = read_rl_data(settings, prompter, context, settings.max_response)
    if not data.held_out:
        raise UseError("verl needs puzzles to validate on; set verl.held_out or verl.validation")
    write_rows(data.practise, prompter, folder / "train.parquet")
    write_rows(data.held_out, prompter, folder / "validation.parquet")
    write_atomic(folder / "reward.py", _REWARD.format(reward=settings.reward).encode())
    # verl overwrites its log at every start, so each start gets a log of its own.
    (folder / "logs").mkdir(exist_ok=True)
    log = folder / "logs" / f"{len(list((folder / 'logs').iterdir())):03d}.jsonl"
    local = settings.model_copy(update={"model": str(base.resolve())})
    write_atomic(folder / _CONFIG, OmegaConf.to_yaml(compose(local, folder, log=log)).encode())
    write_json(folder / RECORD, {**record, "data": data.counts})


def write_rows(puzzles: Sequence[Puzzle], prompter: Prompter, path: Path) -> None:
    """Write puzzles with answers for verl; the file appears whole or not at all.

    Raises
    ------
    InputError
        When verl would ask something other than our solvers, or would not see the tags.
    """
    _check_template(prompter, puzzles[0])
    rows = []
    for index, puzzle in enumerate(puzzles):
        assert puzzle.answer is not None
        gold = {"style": "rule", "ground_truth": gold_message(puzzle.answer)}
        extra = {
            "index": index,
            "id": puzzle.id,
            "candidates": list(puzzle.candidates),
            "opened": prompter.prompt(puzzle)[1],
        }
        chat = [message._asdict() for message in messages(puzzle)]
        rows.append(
            {"data_source": SOURCE, "prompt": chat, "reward_model": gold, "extra_info": extra}
        )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def _check_template(prompter: Prompter, puzzle: Puzzle) -> None:
    """Check that verl renders the chat and decodes responses as we do."""
    tokenizer = prompter.tokenizer
    chat = [message._asdict() for message in messages(puzzle)]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja raises its own kinds of errors
        raise InputError(
            f"the chat template of {prompter.source} does not take a system message ({error}), so "
            "verl could not ask what our solvers ask; use a template that does"
        ) from error
    if prompter.vocabulary.encode(str(text)) != prompter.prompt(puzzle)[0]:
        raise InputError(f"verl would ask {prompter.source} in other tokens than our solvers do")
    said = "".join(TAGS)
    ids = prompter.vocabulary.encode(said)
    if str(tokenizer.decode(ids, skip_special_tokens=True)).replace(" ", "") != said:
        raise InputError(
            f"the tokenizer of {prompter.source} has the tags as special tokens; verl leaves those "
            "out when it decodes, so every response would be invalid: use an instruct model such "
            "as Qwen2.5, or --engine ppo"
        )


def _need_gpus(wanted: int) -> None:
    import torch

    found = torch.cuda.device_count()
    if found < wanted:
        raise UseError(
            f"verl.gpus is {wanted} and this machine has {found}; set verl.gpus and verl.nodes, "
            "name a Ray cluster in verl.address, or train with --engine ppo"
        )


def _command(folder: Path) -> list[str]:
    here = folder.resolve()
    return [
        *(sys.executable, "-m", "verl.trainer.main_ppo"),
        *("--config-path", str(here), "--config-name", Path(_CONFIG).stem),
        *(f"hydra.run.dir={here}", "hydra.output_subdir=null", "hydra/job_logging=disabled"),
    ]


def _start(folder: Path) -> None:
    code = subprocess.run(_command(folder), check=False).returncode
    if code != 0:
        raise InputError(
            f"verl ended with status {code}; its messages are above. Run the same command again "
            f"to resume from its last checkpoint in {folder / 'checkpoints'}"
        )


def _publish(folder: Path, final: Path) -> None:
    """Convert the best checkpoint, or the newest where none was validated."""
    best, measured = best_step(folder)
    record = read_record(folder)
    record["result"] = {"step": best, **measured}
    convert_verl(folder / "checkpoints" / f"global_step_{best}", final, record=record)


def best_step(folder: Path) -> tuple[int, dict[str, float]]:
    """Return the checkpoint of the best validation in verl's logs, and its metrics.

    Raises
    ------
    InputError
        When there is no complete checkpoint.
    """
    newest = folder / "checkpoints" / _LATEST
    if not newest.exists():
        raise InputError(f"verl left no checkpoint in {newest.parent}")
    last = int(newest.read_text())
    measured: dict[int, dict[str, Any]] = {}
    for log in sorted((folder / "logs").glob("*.jsonl")):
        for line in log.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a line that was being written when verl was killed
                continue
            if _SCORE in entry["data"]:
                measured[entry["step"]] = entry["data"]
    places = {s: folder / "checkpoints" / f"global_step_{s}" for s in measured if s <= last}
    kept = [step for step, place in sorted(places.items()) if place.is_dir()]
    if not kept:
        return last, {}
    best = max(kept, key=lambda step: (measured[step][_SCORE], -step))
    return best, {"eval_batch_accuracy": measured[best][_SCORE]}
