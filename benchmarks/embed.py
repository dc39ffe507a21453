"""Put a trained model into the package, as the solver `mini`.

Run ``python benchmarks/embed.py MODEL METRICS`` with the model folder of a run of
``benchmarks/ablations.py`` (or ``mini.py``) and the metrics.json of its answers on donors it never
saw. Weights are written in bfloat16, beside tokenizer, card and record of the training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cello1.runs import write_json
from cello1.solvers.local.mini import FOLDER
from cello1.training.run.card import model_card
from cello1.training.run.model_identity import RECORD, read_record

ABOUT = """# mini: the model that cello1 carries with it

{parameters:,} parameters, trained from nothing on two cores, in these steps, each from the recipe
beside it in `recipes/`:

1. `cello1 base` with `mini-cpu.yaml` (crossed cells), `mini-real.yaml` (real cells),
   `mini-listed.yaml` (cell by cell), `mini-thin.yaml` (some of the genes) and `mini-drafted.yaml`
   (drafts, then each type once): the training donors of two extracts of Kang et al. 2018
   (GSE96583), and cells simulated from public mean profiles of 17 tissues;
2. `cello1 distill` with the offline teacher, which words drafts as well (`mini-drafted.yaml`), and
   `cello1 sft` on what it solved. Rewards (`cello1 rl`) lift the model before the drafts and not
   this one: `docs/results.md` tells of both.

All at once: `python benchmarks/mini.py DATA`, then `python benchmarks/ablations.py DATA`, of which
this is the run `{run}`. It knows blood best. Of types it never met it can only read the name.

## How it was made, last step
"""


def main() -> None:
    """Convert and copy."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("metrics", type=Path)
    args = parser.parse_args()
    record = read_record(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    FOLDER.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(FOLDER)
    AutoTokenizer.from_pretrained(args.model, padding_side="left").save_pretrained(FOLDER)
    measured = json.loads(args.metrics.read_text("utf-8"))["overall"]
    card = model_card(record, "bsd-3-clause", measured)
    about = ABOUT.format(
        parameters=sum(p.numel() for p in model.parameters()), run=args.model.parent.name
    )
    card = card.replace("# A model that annotates cell types, batch by batch\n", about, 1)
    (FOLDER / "README.md").write_text(card, "utf-8")
    write_json(FOLDER / RECORD, record)
    size = sum(path.stat().st_size for path in FOLDER.rglob("*")) / 1e6
    print(f"{FOLDER}: {size:.1f} MB")


if __name__ == "__main__":
    main()
