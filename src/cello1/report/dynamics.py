"""Training dynamics: the log of a run as curves over steps.

The panels are those of Figure 5 of arXiv 2506.02911 and what explains them. Runs of `base`, `sft`
and `rl` use different field names where they measure different things; panels without a field are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.runs import LOG, json_lines

_WINDOW = 40  # a smoothed point looks back over a 40th of the run


@dataclass(frozen=True)
class Panel:
    """One plot of training dynamics: its title and possible fields, the best first."""

    key: str
    title: str
    fields: tuple[str, ...]
    share: bool = False


PANELS = (
    Panel("reward", "Reward", ("reward",)),
    Panel("batch", "Batches fully right, held out", (
        "validation_batch_accuracy", "eval_batch_accuracy"), share=True),
    Panel("cell", "Cells right, held out", (
        "validation_cell_accuracy", "eval_cell_accuracy"), share=True),
    Panel("train-batch", "Batches fully right, in training", ("batch_accuracy",), share=True),
    Panel("train-cell", "Cells right, in training", ("cell_accuracy",), share=True),
    Panel("signal", "Groups without signal", (
        "no_signal", "frac_reward_zero_std"), share=True),
    Panel("kl", "KL divergence from the start", ("kl",)),
    Panel("entropy", "Entropy per token", ("entropy",)),
    Panel("length", "Response length in tokens", (
        "length", "completions/mean_length", "eval_response_tokens")),
    Panel("format", "Responses in the right format", (
        "format", "validation_format", "validation_format_validity", "eval_format_validity"),
        share=True),
    Panel("uniqueness", "Different labels per answer", (
        "uniqueness", "validation_uniqueness"), share=True),
    Panel("loss", "Loss, in training", ("loss",)),
    Panel("eval-loss", "Loss, held out", ("eval_loss", "validation_loss")),
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A measure over the steps of one run: x and y as logged, and y smoothed."""

    steps: tuple[float, ...]
    values: tuple[float, ...]
    smooth: tuple[float, ...]


@dataclass(frozen=True)
class TrainingLog:
    """A training run: its name, its command, and its curves by panel."""

    name: str
    command: str
    curves: dict[str, Curve]


def read_log(name: str, run: Path, info: Mapping[str, Any]) -> TrainingLog:
    """Read the log of a training run.

    Raises
    ------
    InputError
        When the run has no log, or no line of it has a known measure.
    """
    command, path = str(info.get("command")), run / LOG
    if not path.exists():
        raise InputError(
            f"{run} is a run of {command!r} without {LOG}; a report is made of runs of 'solve' "
            "and of runs that train ('base', 'sft', 'rl')"
        )
    lines = list(_lines(path))
    found = {panel.key: curve for panel in PANELS if (curve := _curve(lines, panel)) is not None}
    if not found:
        raise InputError(f"{path} has no line with a step and a measure; is the run just begun?")
    return TrainingLog(name, command, found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines, nested fields as `outer_inner`."""
    for _, fields in json_lines(path):
        flat: dict[str, Any] = {}
        for key, value in fields.items():
            if isinstance(value, dict):
                flat |= {f"{key}_{inner}": v for inner, v in value.items()}
            else:
                flat[key] = value
        yield flat


def _curve(lines: Sequence[Mapping[str, Any]], panel: Panel) -> Curve | None:
    """Return the curve of the first field that the run logs; the last line of a step counts."""
    for name in panel.fields:
        points = {
            float(line["step"]): float(line[name])
            for line in lines
            if _is_number(line.get("step")) and _is_number(line.get(name))
        }
        if points:
            steps = tuple(sorted(points))
            values = tuple(points[step] for step in steps)
            return Curve(steps, values, _smooth(values))
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _smooth(values: Sequence[float]) -> tuple[float, ...]:
    """Average over the past with decaying weights; early points are not biased towards zero."""
    keep = 1 - 1 / max(1.0, len(values) / _WINDOW)
    total = weight = 0.0
    smoothed = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        smoothed.append(total / weight)
    return tuple(smoothed)
