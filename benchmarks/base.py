"""Speed of pre-training, in the data type of the machine and in float32.

Run ``python benchmarks/base.py ../shared/data [--steps 8] [--hidden 256] [--layers 6]``. Both train
the same model on the same puzzles, which are written as well, in turn, three times. Prints the
tokens/s of both (medians over steps), their ratio, and the share of a step in which products of
matrices alone, as many and of the same shapes as the weights, would be done: the physical limit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

import torch

from cello1.recipes import BaseModelSettings, Stage
from cello1.runs import LOG
from cello1.training.base import pretrain
from cello1.training.base.base import base
from cello1.training.base.sources import gather
from cello1.training.run.precision import training_dtype

WARM = 2  # steps not counted


def speeds(settings: BaseModelSettings, dtype: torch.dtype, out: Path) -> list[float]:
    """Train and return the tokens/s of every step."""
    with mock.patch.object(pretrain, "training_dtype", return_value=dtype):
        base(settings, out)
    lines = [json.loads(line) for line in (out / LOG).read_text("utf-8").splitlines()]
    read = [line["tokens"] for line in lines]
    steps = zip(read[WARM:], read[WARM - 1 :], lines[WARM:], strict=False)
    return [(now - before) / line["seconds"] for now, before, line in steps]


def limit(hidden: int, layers: int, dtype: torch.dtype, tokens: int = 8192) -> float:
    """Return the tokens/s of the products of a step: forward, and twice as many backward."""
    x = torch.randn(tokens, hidden, dtype=dtype)
    shapes = [(3 * hidden, hidden), (hidden, hidden), (5 * hidden, hidden)]
    weights = [torch.randn(*shape, dtype=dtype) for shape in shapes]
    down = torch.randn(hidden, 5 * hidden // 2, dtype=dtype)
    wide = torch.randn(tokens, 5 * hidden // 2, dtype=dtype)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(3):
            for weight in weights:
                x @ weight.T
            wide @ down.T
        spent.append(time.perf_counter() - start)
    return tokens / (median(spent) * layers)


def main() -> None:
    """Compare the two."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--hidden", type=int, default=256)
    arguments.add_argument("--layers", type=int, default=6)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    own = training_dtype(torch.device("cpu"))
    stage = Stage(steps=args.steps + WARM, cells=(4, 13), genes=(40, 50), written=1.0,
                  batch_tokens=6144)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        profiles = sorted((args.data / "profiles").glob("*.parquet"))
        sources = Path(folder) / "sources.npz"
        gather(profiles, args.data / "profiles" / "cell_types.csv", []).save(sources)
        settings = BaseModelSettings(
            sources=str(sources), stages=(stage,), hidden=args.hidden, layers=args.layers
        )
        found: dict[torch.dtype, list[float]] = {own: [], torch.float32: []}
        for turn in range(3):
            for dtype in found:
                found[dtype] += speeds(settings, dtype, Path(folder) / f"{turn} {dtype}")
    for dtype, tokens in found.items():
        share = median(tokens) / limit(args.hidden, args.layers, dtype)
        print(f"{dtype}: {median(tokens):,.0f} tokens/s, {share:.0%} of the products alone")
    print(f"ratio {median(found[own]) / median(found[torch.float32]):.2f}")


if __name__ == "__main__":
    main()
