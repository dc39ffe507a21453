"""How many responses does `cello1.score` judge in a second.

    python benchmarks/score.py [--responses 4000] [--repeats 9]

Writes responses of 900 words of reasoning to puzzles of 8 to 15 cells: 40 % right, 30 % with two
labels swapped, 10 % with a repeated, foreign or missing label and 20 % malformed; every eighth has
a character outside ASCII. Prints responses per CPU second of `score` on one core, for the mix and
for each kind, beside the plain work on the same texts, timed in turn with it: `strip` and counting
the four tags. Medians of `--repeats` rounds. Where a glance shows that all tags are in place,
`score` need not count them and may be faster than that.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from time import process_time

import cello1
from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import response_text

KINDS = {"right": 40, "swapped": 30, "bad label": 10, "malformed": 20}
SENTENCES = (
    "Cell {i} lists {a}, {b} and {c} near the top, which together speak for a {t}.",
    "The high rank of {a} in cell {i} would also fit a {t}, but {b} is missing there.",
    "Wait, before I settle this I should compare cell {i} with the others, since {a} is shared.",
    "{a} and {b} are markers of a {t}; only cell {i} has both, so this one is rather sure.",
    "That leaves {t} for cell {i}, and the ribosomal genes after {c} say little either way.",
)


def make_puzzle(n: int, rng: random.Random) -> cello1.Puzzle:
    """Make a puzzle of n cells with 50 genes each."""
    genes = [f"GENE{i}" for i in range(2_000)]
    types = [f"{adjective} {kind} cell" for adjective in ("alpha", "beta", "CD8-positive, mature")
             for kind in ("epithelial", "T", "dendritic", "endothelial", "muscle")]  # fmt: skip
    answer = rng.sample(types, n)
    cells = tuple(tuple(rng.sample(genes, 50)) for _ in range(n))
    return cello1.Puzzle("A sample.", cells, tuple(sorted(answer)), tuple(answer))


def reasoning(puzzle: cello1.Puzzle, rng: random.Random) -> str:
    """Write 900 words about a puzzle."""
    words: list[str] = []
    while len(words) < 900:
        i = rng.randrange(len(puzzle.cells))
        a, b, c = rng.sample(puzzle.cells[i], 3)
        label = rng.choice(puzzle.candidates)
        words += rng.choice(SENTENCES).format(i=i + 1, a=a, b=b, c=c, t=label).split(" ")
    dash = "\u2013" if rng.random() < 1 / 8 else "-"
    return " ".join(words[:900]) + f" {dash} done."


def respond(puzzle: cello1.Puzzle, kind: str, rng: random.Random) -> str:
    """Write a response of one kind."""
    assert puzzle.answer is not None
    labels, i = list(puzzle.answer), rng.randrange(len(puzzle.answer) - 1)
    if kind == "swapped":
        labels[i], labels[i + 1] = labels[i + 1], labels[i]
    elif kind == "bad label":
        bad = rng.choice(([labels[i + 1]], ["a foreign cell"], [""], []))
        labels[i : i + 1] = bad
    text = response_text(reasoning(puzzle, rng), tuple(labels))
    if kind == "malformed":
        spoil = (
            lambda t: t.replace("</think>\n", "</think>\n\n"),
            lambda t: "Here is my answer. " + t,
            lambda t: t.partition("<answer>")[0],
            lambda t: t[: len(t) // 2],
            lambda t: t.replace("<answer>", "<answer><answer>"),
        )
        text = rng.choice(spoil)(text)
    return rng.choice(("", "\n")) + text + rng.choice(("", "\n", "  "))


def limit(puzzle: cello1.Puzzle, text: str) -> int:
    """Do the plain work: trim the text, count the tags."""
    text = text.strip()
    return sum([text.count(tag) for tag in TAGS])


def rate(judge: Callable[[cello1.Puzzle, str], object], work: list[tuple]) -> float:
    """Return responses per second."""
    began = process_time()
    for puzzle, text in work:
        judge(puzzle, text)
    return len(work) / (process_time() - began)


def main() -> None:
    """Write responses, score them, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--responses", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    rng = random.Random(0)
    puzzles = [make_puzzle(n, rng) for n in range(8, 16) for _ in range(10)]
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=args.responses)
    mix = defaultdict(list)
    for kind in kinds:
        puzzle = rng.choice(puzzles)
        mix[kind].append((puzzle, respond(puzzle, kind, rng)))
    mix["all"] = [item for items in list(mix.values()) for item in items]
    rng.shuffle(mix["all"])
    print("| responses | score | strip + count | ratio |\n|:--|--:|--:|--:|")
    for kind in ("all", *KINDS):
        pairs = [
            (rate(cello1.score, mix[kind]), rate(limit, mix[kind])) for _ in range(args.repeats)
        ]
        ours, theirs = (median(column) for column in zip(*pairs, strict=True))
        print(f"| {kind} | {ours:,.0f}/s | {theirs:,.0f}/s | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
