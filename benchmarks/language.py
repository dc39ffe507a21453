"""Speed of language solvers, beside one prompt at a time with the same model.

Run ``python benchmarks/language.py [--model FOLDER] [--puzzles 256] [--tokens 200]``. Without a
model, one with random weights is made; it never ends by itself, so every response has the full
length. Prints

* responses/s of batched generation beside `generate` of transformers called once per puzzle, and
  how many of the answers are equal;
* joint decoding by likelihood beside one forward pass per (cell, candidate) pair;
* the peak memory of a response of 3,500 new tokens to the longest puzzle of the paper (15 cells of
  50 genes).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from cello1.puzzles.prompt import user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Failure, Response
from cello1.solvers.classical.markers import Markers
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.likelihood import LikelihoodSolver
from cello1.training.base.tokens import make_tokenizer


def make_puzzles(n: int, cells: tuple[int, int] = (8, 15)) -> list[Puzzle]:
    """Make puzzles of the paper's size from the genes and types of our marker table."""
    rng = np.random.default_rng(0)
    table = Markers.from_file().weights
    genes = sorted({gene for markers in table.values() for gene in markers})
    puzzles = []
    for _ in range(n):
        types = rng.choice(sorted(table), int(rng.integers(*cells, endpoint=True)), replace=False)
        lists = [tuple(map(str, rng.choice(genes, 50, replace=False))) for _ in types]
        puzzles.append(Puzzle("Blood of one donor.", lists, tuple(map(str, types))))
    return puzzles


def make_model(folder: Path, puzzles: list[Puzzle]) -> Path:
    """Save a random model of about a million parameters; a gene is one token.

    Four heads share one set of keys and values; in Qwen2.5-7B, which the paper tunes, seven do.
    """
    genes = sorted({gene for puzzle in puzzles for cell in puzzle.cells for gene in cell})
    types = sorted({label for puzzle in puzzles for label in puzzle.candidates})
    texts = [user_message(puzzle) for puzzle in puzzles[:100]]
    tokenizer = make_tokenizer(genes, types, texts, vocabulary=1_000)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=1, head_dim=32, max_position_embeddings=8_192,
        tie_word_embeddings=True, initializer_range=0.1, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def solved(solver: LanguageSolver, puzzles: list[Puzzle]) -> tuple[dict[str, str], float]:
    """Return the texts and the seconds."""
    texts: dict[str, str] = {}

    def keep(puzzle_id: str, result: Response | Failure) -> None:
        assert isinstance(result, Response), result
        texts[puzzle_id] = result.text

    start = time.perf_counter()
    solver.solve(puzzles, keep)
    return texts, time.perf_counter() - start


def one_at_a_time(
    language: LanguageModel, puzzles: list[Puzzle], n: int
) -> tuple[list[str], float]:
    """Generate as the published script does, with the model as `transformers` loads it."""
    texts = []
    peer = deepcopy(language.model)
    peer.set_attn_implementation("sdpa")
    peer.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, do_sample=False)
    start = time.perf_counter()
    for puzzle in puzzles:
        prompt, _ = language.prompt(puzzle)
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = peer.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=n,
                do_sample=False,
            )[0, len(prompt) :].tolist()
        texts.append(language.vocabulary.text([t for t in out if t not in language.ends]))
    return texts, time.perf_counter() - start


@torch.inference_mode()
def pair_by_pair(language: LanguageModel, puzzle: Puzzle, pairs: int) -> float:
    """Return the seconds per (cell, candidate) pair of whole forward passes."""
    prompt, _ = language.prompt(puzzle)
    start = time.perf_counter()
    for label in puzzle.candidates[:pairs]:
        tokens = prompt + language.vocabulary.encode(f"<think>Cell 1 is {label}")
        language.model(torch.tensor([tokens]))
    return (time.perf_counter() - start) / pairs


def main() -> None:
    """Run and print everything."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--puzzles", type=int, default=256)
    arguments.add_argument("--tokens", type=int, default=200)
    args = arguments.parse_args()
    puzzles = make_puzzles(args.puzzles)
    with tempfile.TemporaryDirectory() as folder:
        language = LanguageModel(args.model or make_model(Path(folder), puzzles))
    if args.model is None:
        language.ends = []
        language.model.generation_config.eos_token_id = None
    few = puzzles[:: max(1, len(puzzles) // 12)][:12]
    solver = LanguageSolver(language, max_new_tokens=args.tokens)
    solved(solver, puzzles[:2])
    rounds = []
    for _ in range(3):  # in turn, so that both meet the same machine
        peer, alone = one_at_a_time(language, few, args.tokens)
        texts, together = solved(solver, puzzles)
        rounds.append((len(puzzles) / together, len(few) / alone))
        same = sum(texts[p.id] == text for p, text in zip(few, peer, strict=True))
    ratios = sorted(rate / slow for rate, slow in rounds)
    rate, slow = (median(column) for column in zip(*rounds, strict=True))
    print(f"batched {rate:.2f} responses/s, one at a time {slow:.3f}: {ratios[1]:.1f} x "
          f"({ratios[0]:.1f}-{ratios[2]:.1f}; {same} of {len(few)} answers equal)")  # fmt: skip

    puzzle = max(puzzles, key=lambda p: len(p.cells))
    rater = LikelihoodSolver(language)
    rater.scores(puzzle)
    start = time.perf_counter()
    rater.scores(puzzle)
    ours = time.perf_counter() - start
    naive = pair_by_pair(language, puzzle, 5) * 2 * len(puzzle.cells) * len(puzzle.candidates)
    print(f"likelihood of {len(puzzle.cells)} x {len(puzzle.candidates)}: {ours:.2f} s, pair by "
          f"pair {naive:.1f} s: {naive / ours:.0f} x")  # fmt: skip

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (longest,) = make_puzzles(1, (15, 15))
    solved(LanguageSolver(language, max_new_tokens=3_500), [longest])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"15 cells x 50 genes, 3,500 new tokens: peak memory {after:,.0f} MB ({before:,.0f} before)"
    )


if __name__ == "__main__":
    main()
