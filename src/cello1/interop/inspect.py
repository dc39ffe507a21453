"""A task for Inspect (inspect-ai): `inspect eval cello1/cellpuzzles -T puzzles=test.parquet`."""

from __future__ import annotations

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, ModelOutput
from inspect_ai.scorer import Score as Scored
from inspect_ai.scorer import Scorer, Target, accuracy, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from cello1.interop.figures import answered, figures
from cello1.puzzles.answer import assembled
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, row_from_puzzle


@task  # type: ignore[untyped-decorator]
def cellpuzzles(puzzles: str, max_tokens: int = 3_500, opened: bool = False) -> Task:
    """Match the cells of a batch with their types.

    Parameters
    ----------
    puzzles
        A file of puzzles with answers.
    max_tokens
        Budget of a response.
    opened
        The model's chat template ends in ``<think>``, so that its texts start after it.
    """
    samples = [_sample(puzzle, opened) for puzzle in answered(read_puzzles(Path(puzzles)), puzzles)]
    return Task(
        dataset=MemoryDataset(samples, name="cellpuzzles"),
        solver=generate(),
        scorer=[batch_accuracy(), cell_accuracy(), format_validity(), uniqueness()],
        config=GenerateConfig(max_tokens=max_tokens),
    )


def _sample(puzzle: Puzzle, opened: bool) -> Sample:
    system, user = messages(puzzle)
    row = row_from_puzzle(puzzle)
    # A row without a donor is a cluster of its own.
    donor = "/".join(str(row[key]) for key in ("dataset", "donor_id") if row[key]) or puzzle.id
    return Sample(
        input=[ChatMessageSystem(content=system.content), ChatMessageUser(content=user.content)],
        target=row["assistant_msg"],
        id=puzzle.id,
        metadata={"donor_id": donor, "row": row, "opened": opened},
    )


def _response(output: ModelOutput) -> str:
    """Return the full text with its reasoning, which some providers send separately."""
    content = output.message.content if output.choices else ""
    parts = [] if isinstance(content, str) else content
    thought = "".join(part.reasoning for part in parts if part.type == "reasoning")
    return assembled(output.completion, thought)


def _scorer_of(name: str) -> Scorer:
    async def score(state: TaskState, target: Target) -> Scored:
        text = _response(state.output)
        found = figures(state.metadata["row"], text, opened=state.metadata["opened"])
        return Scored(value=found[name], answer=text)

    return score


@scorer(metrics=[accuracy(), stderr(cluster="donor_id")])  # type: ignore[untyped-decorator]
def batch_accuracy() -> Scorer:
    """Return whether every cell is right; standard errors are clustered by donor."""
    return _scorer_of("batch_accuracy")


@scorer(metrics=[mean(), stderr(cluster="donor_id")])  # type: ignore[untyped-decorator]
def cell_accuracy() -> Scorer:
    """Return the share of right cells."""
    return _scorer_of("cell_accuracy")


@scorer(metrics=[mean()])  # type: ignore[untyped-decorator]
def format_validity() -> Scorer:
    """Return whether the response is in the exact format."""
    return _scorer_of("format_validity")


@scorer(metrics=[mean()])  # type: ignore[untyped-decorator]
def uniqueness() -> Scorer:
    """Return the share of distinct labels."""
    return _scorer_of("uniqueness")
