"""The model card: what a model was made from and how, how good it is, and its licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_METRICS = {
    "cell_accuracy": "cell-level accuracy",
    "batch_accuracy": "batch-level accuracy",
    "format_validity": "format validity",
    "uniqueness": "answer uniqueness",
}
_METHODS = {
    "sft": "supervised fine-tuning on traces of solved puzzles, with `cello1 sft`.",
    "rl": "reinforcement learning with rewards for its responses, with `cello1 rl`.",
}
_SHOWN_DONORS = 40


def model_card(
    record: Mapping[str, Any],
    licence: str | None,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """Write the card of a model that was trained here.

    Parameters
    ----------
    record
        The ``training.json`` of the training.
    licence
        Of the model, if it is known.
    metrics
        The overall metrics of an evaluation, if there is one.
    """
    head: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["cell-type-annotation", "single-cell", "cello1"],
    }
    if licence:
        head["license"] = licence
    lines = _base(record) if record["command"] == "base" else _tuned(record, metrics)
    source = record.get("base", {}).get("source")
    if source and not Path(source).exists():  # a name on the hub
        head["base_model"] = source
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
            *lines,
            "## Licence",
            "",
            f"{licence or 'That of the base model, which its folder does not name.'} The data it "
            "was trained on may have terms of their own. For research use; not for diagnosis.",
            "",
        ]
    )


def base_licence(folder: Path) -> str | None:
    """Return the licence that the card of a model names in its head."""
    card = folder / "README.md"
    if not card.exists():
        return None
    parts = card.read_text("utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    named = head.get("license") if isinstance(head, dict) else None
    return str(named) if named else None


def _base(record: Mapping[str, Any]) -> list[str]:
    """Describe a small model that was trained from scratch."""
    start, donors, tables = record["settings"]["model"], record["donors"], record["tables"]
    how = "trained from scratch" if start is None else f"trained on from `{start}`"
    return [
        "# A small model that annotates cell types, batch by batch",
        "",
        f"{record['parameters']:,} parameters, {how} by `cello1 base` on {record['tokens']:,} "
        f"tokens of puzzles, with fresh cells drawn for every puzzle. It knows "
        f"{record['types']} types by name and reads the names of others word by word. It rates "
        "every candidate for every cell (`--decode assign`), and writes what each cell may "
        "be, its type with the genes that speak for it, and the answer (`--decode generate`).",
        "",
        "## What it learned from",
        "",
        f"Mean profiles: {', '.join(f'`{name}`' for name in tables) or 'none'}.",
        "",
        f"Real cells of {len(donors)} donors and batches: "
        f"{'; '.join(donors[:_SHOWN_DONORS]) or 'none'}. Nothing else; the exact settings are in "
        "`training.json`.",
        "",
    ]


def _tuned(record: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> list[str]:
    """Describe a model that was made from another."""
    return [
        "# A model that annotates cell types, batch by batch",
        "",
        f"Made from `{record['base']['source']}`. It matches the cells of one donor, each of a "
        "different type, with the candidate types and gives reasons. Method: Cell-o1 (arXiv "
        "2506.02911), "
        f"{_METHODS[record['command']]}",
        "",
        *_data(record),
        *_recipe(record),
        *_results(record, metrics),
    ]


def _data(record: Mapping[str, Any]) -> list[str]:
    data, settings = record["data"], record["settings"]
    held = ", ".join(data["held_out_donors"]) or "not recorded"
    donors = f"- donors: {len(data['donors'])} trained on; held out: {held}"
    if record["command"] == "rl":
        return [
            "## Data",
            "",
            f"- {data['practised']} puzzles ({', '.join(settings['puzzles'])}); "
            f"{data['dropped_too_long']} with prompts longer than {data['limit']} tokens were "
            "left out",
            donors,
            "",
        ]
    files = [*settings["traces"], *settings.get("knowledge", ())]
    what = " and ".join(k for k in ("traces", "questions") if data.get(k)) or "traces"
    lines = [
        "## Data",
        "",
        f"- {data['learned']} {what} ({', '.join(files)}), of which "
        f"{data['response_tokens']:,} tokens are responses; {data['dropped_too_long']} longer than "
        f"{data['limit']} tokens were left out",
        f"- answers {'without' if settings['answers_only'] else 'with'} reasoning",
        donors,
    ]
    if data["hinted"]:
        lines.append(f"- {data['hinted']} traces by a teacher that was shown the answer")
    if data.get("with_evidence"):
        lines.append(f"- {data['with_evidence']} traces with evidence of an atlas in the prompt")
    if data.get("questions"):
        without = ", ".join(data["questions_without"]) or "nothing"
        lines.append(f"- {data['questions']:,} questions asked of an atlas; left out: {without}")
    return [*lines, ""]


def _recipe(record: Mapping[str, Any]) -> list[str]:
    settings = record["settings"]
    shown = {
        k: v
        for k, v in settings.items()
        if v is not None and k not in ("traces", "knowledge", "puzzles", "gpus")
    }
    libraries = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    text = yaml.safe_dump(shown, sort_keys=True)
    return ["## Recipe", "", f"```yaml\n{text}```", "", f"With {libraries}.", ""]


def _results(record: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> list[str]:
    result = record.get("result", {})
    lines = ["## Results", ""]
    if "eval_batch_accuracy" in result:
        lines += [
            f"On {result['eval_solved']:.0f} puzzles of held-out donors, on which the checkpoint "
            f"was chosen (step {result['step']}): cell-level accuracy "
            f"{result['eval_cell_accuracy']:.3f}, batch-level {result['eval_batch_accuracy']:.3f}.",
            "",
        ]
    if metrics is None:
        return [*lines, "No test results are recorded.", ""]
    lines += [
        f"On {metrics['n']} test puzzles:",
        "",
        "| | mean | 95 % interval |",
        "|---|---:|---:|",
    ]
    for key, name in _METRICS.items():
        found = metrics[key]
        spread = f"{found['low']:.3f} to {found['high']:.3f}"
        lines.append(f"| {name} | {found['estimate']:.3f} | {spread} |")
    unit = metrics["batch_accuracy"].get("unit", "puzzle")
    chance = f"chance: {metrics['chance_cell']:.3f} / {metrics['chance_batch']:.2g}"
    return [*lines, "", f"Intervals: over {unit}s; {chance} (cell, batch).", ""]
