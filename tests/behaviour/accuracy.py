"""How far the detectors can be trusted: precision and recall on responses labelled by hand.

``python tests/behaviour/accuracy.py`` prints the tables of docs/behaviour.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from cello1.behaviour.detect import ERRORS, FLAGS, Behaviour, detect, error_types
from cello1.citations.citations import citations, gene_vocabulary
from cello1.errors import InputError
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.puzzles.table import read_puzzles

PUZZLES = "behaviour_puzzles.jsonl"
PARTS = ("development", "held out")
_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PUBLISHED = _SHARED / "cellpuzzles_reasoning_sample.jsonl"
_FIELDS = {
    "id",
    "part",
    "puzzle",
    "reasoning",
    "answer",
    "discussed",
    "claims",
    "conflicts",
    "errors",
}


@dataclass(frozen=True)
class Labelled:
    """A response with what a person says of it (fields: tests/behaviour/README.md)."""

    puzzle: Puzzle
    answer: Answer
    labels: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right and wrong findings of one detector.

    Attributes
    ----------
    found, missed, false
        Hits, misses and false alarms.
    """

    found: int
    missed: int
    false: int

    @property
    def precision(self) -> float:
        """Share of what was found that is really there; nan when nothing was found."""
        made = self.found + self.false
        return self.found / made if made else float("nan")

    @property
    def recall(self) -> float:
        """Share of what is there that was found; nan when nothing is there."""
        there = self.found + self.missed
        return self.found / there if there else float("nan")


def read_labels(path: Path) -> list[Labelled]:
    """Read labelled responses; their puzzles lie beside them in ``behaviour_puzzles.jsonl``.

    Raises
    ------
    InputError
        When a row lacks a field or names a puzzle that is not there.
    """
    puzzles = {str(p.meta.get("dataset")): p for p in read_puzzles(path.parent / PUZZLES)}
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is no JSON: {error}") from error
        if missing := sorted((_FIELDS | {*FLAGS}) - row.keys()):
            raise InputError(f"{path}, line {number} lacks {', '.join(missing)}")
        if row["puzzle"] not in puzzles:
            raise InputError(f"{path}, line {number}: no puzzle {row['puzzle']!r} in {PUZZLES}")
        answer = Answer(tuple(row["answer"]), row["reasoning"])
        found.append(Labelled(puzzles[row["puzzle"]], answer, row))
    return found


def read_prose(path: Path, published: Path) -> list[Labelled]:
    """Read the labels of prose; those of published responses by id, where these are at hand."""
    puzzles = {str(p.meta.get("dataset")): p for p in read_puzzles(path.parent / PUZZLES)}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = {}
    if published.exists():
        ids = [json.loads(line)["id"] for line in published.read_text("utf-8").splitlines()]
        texts = dict(zip(ids, read_puzzles(published), strict=True))
    found = []
    for row in rows:
        if row["part"] != "published":
            answer = Answer(tuple(row["answer"]), row["reasoning"])
            found.append(Labelled(puzzles[row["puzzle"]], answer, row))
        elif row["id"] in texts:
            puzzle = texts[row["id"]]
            answer = parse_response(puzzle.meta["assistant_msg"])
            found.append(Labelled(puzzle, answer, row))
    return found


def prose_parts(folder: Path) -> dict[str, list[Labelled]]:
    """Return the labelled prose: published responses, where they are at hand, and own ones."""
    found = read_prose(folder / "prose_labels.jsonl", PUBLISHED)
    parts: dict[str, list[Labelled]] = {}
    for item in found:
        parts.setdefault(item.labels["part"], []).append(item)
    return dict(sorted(parts.items(), key=lambda part: part[0] != "published"))


def check_genes(labelled: Sequence[Labelled]) -> dict[str, Accuracy]:
    """Compare the genes read with the labels: those cited for cells, and those only expected."""
    spelled = {g.lstrip("!") for i in labelled for t in i.labels["cited"].values() for g in t}
    expected = {gene for item in labelled for gene in item.labels["expected"]}
    vocabulary = gene_vocabulary(item.puzzle for item in labelled) | spelled | expected
    cited, general = [], []
    for item in labelled:
        read = citations(item.puzzle, item.answer.reasoning, vocabulary, denied=True, expected=True)
        made = {(c.cell, f"{'!' if c.denied else ''}{c.gene}") for c in read if not c.expected}
        true = {(int(cell), g) for cell, genes in item.labels["cited"].items() for g in genes}
        cited.append((made, true))
        general.append(({c.gene for c in read if c.expected}, set(item.labels["expected"])))
    return {"genes cited for a cell": accuracy(cited), "genes expected": accuracy(general)}


def check(labelled: Sequence[Labelled]) -> dict[str, Accuracy]:
    """Compare every detector with the labels, finding by finding.

    A finding is a response for the flags, a cell for ``revised cells``, ``discussed cells``,
    ``conflicting cells`` and the error types, a (cell, type) for ``claims``, and a pair of cells
    for ``order`` (which of the two is settled first).
    """
    vocabulary = gene_vocabulary(item.puzzle for item in labelled)
    counts: dict[str, list[tuple[set[Any], set[Any]]]] = {}
    for item in labelled:
        found = detect(item.puzzle, item.answer)
        for name, pair in _pairs(item, found, vocabulary).items():
            counts.setdefault(name, []).append(pair)
    return {name: accuracy(pairs) for name, pairs in counts.items()}


def accuracy(pairs: Iterable[tuple[set[Any], set[Any]]]) -> Accuracy:
    """Count over pairs of (what was found, what is there)."""
    listed = list(pairs)
    return Accuracy(
        sum(len(made & true) for made, true in listed),
        sum(len(true - made) for made, true in listed),
        sum(len(made - true) for made, true in listed),
    )


def gold_right(item: Labelled) -> list[bool]:
    """Say for every cell whether the labelled response has it right."""
    given = [label_key(label) for label in item.answer.labels]
    return [a == b for a, b in zip(given, item.puzzle.answer_keys or (), strict=True)]


def markdown(parts: Mapping[str, Sequence[Labelled]], *, genes: bool = False) -> str:
    """Write a table of docs/behaviour.md: precision and recall in every part of the labels."""
    checked = {
        part: check(items) | (check_genes(items) if genes else {}) for part, items in parts.items()
    }
    head = " | ".join(f"{part}: there | precision | recall" for part in checked)
    lines = [f"| detector | {head} |", "|---" * (1 + 3 * len(checked)) + "|"]
    for name in next(iter(checked.values())):
        if genes and name.startswith(("error:", "conflicting")):
            continue  # all answers of prose are right
        row = [name.replace("_", "-")]
        for found in checked.values():
            a = found[name]
            row += [str(a.found + a.missed), _share(a.found, a.false), _share(a.found, a.missed)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _pairs(
    item: Labelled, found: Behaviour, vocabulary: frozenset[str]
) -> dict[str, tuple[set[Any], set[Any]]]:
    """Return for every detector what it finds in one response, and what is there."""
    labels, puzzle = item.labels, item.puzzle
    claims = [(cell, puzzle.candidate_index[label_key(name)]) for cell, name in labels["claims"]]
    order = list(dict.fromkeys(cell for cell, _ in claims))
    changed = {cell for cell, _ in claims if [c for c, _ in claims].count(cell) > 1}
    pairs: dict[str, tuple[set[Any], set[Any]]] = {
        name: ({name} if getattr(found, name) else set(), {name} if labels[name] else set())
        for name in FLAGS
    }
    pairs["revised cells"] = (set(found.revised), changed)
    pairs["discussed cells"] = (set(found.discussed), set(labels["discussed"]))
    pairs["conflicting cells"] = (set(found.conflicts), set(labels["conflicts"]))
    pairs["last claims"] = (set(found.concluded.items()), set(dict(claims).items()))
    pairs["order"] = (_first_of_two(found.order), _first_of_two(order))
    made = error_types(puzzle, item.answer, found, gold_right(item), vocabulary)
    for name in ERRORS:
        there = {int(cell) for cell, kind in labels["errors"].items() if kind == name}
        pairs[f"error: {name}"] = ({cell for cell, kind in made.items() if kind == name}, there)
    return pairs


def _first_of_two(order: Sequence[int]) -> set[tuple[int, int]]:
    return {(a, b) for i, a in enumerate(order) for b in order[i + 1 :]}


def _share(good: int, bad: int) -> str:
    """Write a share with its exact 95 % interval (Clopper-Pearson).

    Findings of one response are not independent, so it is too narrow for cells and pairs.
    """
    if not good + bad:
        return "-"
    interval = binomtest(good, good + bad).proportion_ci(0.95)
    share = good / (good + bad)
    return f"{share:.2f} [{interval.low:.2f}, {interval.high:.2f}]".replace("0.", ".")


def _main() -> None:
    folder = Path(__file__).parent
    labelled = read_labels(folder / "behaviour_labels.jsonl")
    print(markdown({p: [i for i in labelled if i.labels["part"] == p] for p in PARTS}), end="\n\n")
    print(markdown(prose_parts(folder), genes=True))


if __name__ == "__main__":
    _main()
