"""A base model, traces and settings small enough to train on in seconds."""

import sys
from pathlib import Path

import numpy as np

from cello1.puzzles.prompt import response_text, user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import SftSettings
from cello1.training.run.traces import make_trace, write_traces

sys.path.append(str(Path(__file__).resolve().parents[1] / "solvers"))
from tiny import TEMPLATE, make_model, make_tokenizer

MARKERS = {"B cell": ["MS4A1", "CD79A"], "T cell": ["CD3D", "TRAC"], "monocyte": ["LYZ", "CD14"]}
# Two layouts: one writes a newline behind the end token, the other its own headers and none.
LLAMA = (
    "<|begin|>{% for m in messages %}<|start|>{{ m['role'] }}<|end|>\n\n{{ m['content'] }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
THINKS = TEMPLATE.replace("assistant\n{%", "assistant\n<think>\n{%").replace(
    "{% for", "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{% for", 1
)  # fmt: skip
TEMPLATES = {"chatml": TEMPLATE, "llama": LLAMA, "thinks": THINKS}


def toy_trace(seed, donor, words=3):
    """Three cells, each told by its markers; the reasoning has so many words per cell."""
    rng = np.random.default_rng(seed)
    types = [str(t) for t in rng.permutation(list(MARKERS))]
    cells = [[*MARKERS[t], f"RPL{rng.integers(30)}A", f"RPS{rng.integers(30)}B"] for t in types]
    puzzle = Puzzle("Blood.", cells, sorted(types), types, {"donor_id": donor})
    reasons = " ".join(f"{c[0]} means {t}." + " so" * words for c, t in zip(cells, types, strict=1))
    return make_trace(puzzle, response_text(reasons, puzzle.answer), teacher="toy", sample=0)


def toy_traces(n=20, donors=5):
    return [toy_trace(seed, f"d{seed % donors}", words=seed % 7) for seed in range(n)]


def toy_base(folder, template="chatml", *, seed=0):
    tokenizer = make_tokenizer(
        [user_message(t) for t in toy_traces(60)],
        tags=("<|start|>", "<|end|>", "<|begin|>"),
        template=TEMPLATES[template],
    )
    return make_model(folder, tokenizer, seed=seed)


def toy_settings(base, traces, **more):
    trainer = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 2,
    } | more.pop("trainer", {})
    small = {"rank": 4, "alpha": 8, "solve": 2, "max_new_tokens": 8, "max_length": 1024}
    named = {"model": str(base), "traces": str(traces), "trainer": trainer}
    return SftSettings(**(small | named | more))


def toy_files(folder):
    """Write a base model and a file of traces."""
    write_traces(toy_traces(), folder / "traces.parquet")
    return toy_base(folder / "base"), folder / "traces.parquet"
