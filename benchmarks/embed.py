"""Put a trained model into the package, as the solver `mini`.

Run ``python benchmarks/embed.py MODEL [SET=METRICS ...]`` with the model folder of a run of
``cello1 base`` (or of a training that goes on from one) and the metrics.json of its answers on sets
it never saw. Weights are written in bfloat16, beside tokenizer, card and record of the training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from cello1.runs import write_json
from cello1.solvers.local.loading import load_model, load_tokenizer
from cello1.solvers.local.mini import FOLDER
from cello1.training.run.card import model_card
from cello1.training.run.model_identity import RECORD, read_record

ABOUT = """# mini: the model that cello1 carries with it

Made by `recipes/mini-gpu.yaml` in one command, `python benchmarks/mini.py DATA --recipe mini-gpu
--base`: eight minutes on one GPU. In no training are PBMC3k, the tumours of Puram et al., the
cortex culture, the liver of He et al. and Kang's donors 1016 and 1488, which are test, nor Kang's
donors 1039 and 107 and the pancreas of Baron et al., which are validation.
"""


def main() -> None:
    """Convert and copy."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("metrics", nargs="*", help="NAME=metrics.json of a set it never saw")
    args = parser.parse_args()
    record = read_record(args.model)
    FOLDER.mkdir(parents=True, exist_ok=True)
    load_model(args.model, torch.bfloat16).save_pretrained(FOLDER)
    load_tokenizer(args.model).save_pretrained(FOLDER)
    head, _, rest = model_card(record, "bsd-3-clause").partition("# A small model")
    lines = rest.split("\n", 1)[1]
    (FOLDER / "README.md").write_text(f"{head}{ABOUT}{lines}{results(args.metrics)}", "utf-8")
    write_json(FOLDER / RECORD, record)
    size = sum(path.stat().st_size for path in FOLDER.rglob("*")) / 1e6
    print(f"{FOLDER}: {size:.1f} MB")


def results(metrics: list[str]) -> str:
    """Return the figures as a section of the card."""
    lines = ["\n## Results\n", "| set | puzzles | cell-level | batch-level |", "|---|---:|---|---|"]
    for entry in metrics:
        name, _, path = entry.partition("=")
        found = json.loads(Path(path).read_text("utf-8"))["overall"]
        cells = [name, str(found["n"])]
        for key in ("cell_accuracy", "batch_accuracy"):
            one = found[key]
            cells.append(f"{one['estimate']:.3f} [{one['low']:.3f}, {one['high']:.3f}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""]) if metrics else ""


if __name__ == "__main__":
    main()
