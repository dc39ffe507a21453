"""The rewards as verl calls them."""

import numpy as np
import pytest

from cello1.errors import UseError
from cello1.scoring.reward_verl import compute_score

TYPES = ["B cell", "T cell", "monocyte"]
ROW = {
    "data_source": "cello1",
    "ground_truth": "T cell | B cell",
    # Parquet gives lists back as arrays; there may be more types than cells.
    "extra_info": {"candidates": np.array(TYPES, dtype=object), "opened": False, "index": 3},
}


@pytest.mark.parametrize(
    ("answer", "batch", "dense"),
    [
        ("T cell | B cell", 1, 1),
        ("t CELL |  b cell", 1, 1),
        ("T cell | monocyte", 0, 0.25),
        ("B cell | T cell", 0, 0),
        ("T cell | T cell", 0, -1),
        ("T cell | B cell | monocyte", 0, -1),
        ("T cell", 0, -1),
    ],
)
def test_answers_are_paid_as_the_scorer_finds_them(answer, batch, dense):
    said = f"<think>So.</think>\n<answer>{answer}</answer>"
    found = compute_score(solution_str=said, **ROW)
    assert found["score"] == batch
    assert found["acc"] == (batch == 1)
    assert found["format_validity"] == 1
    assert compute_score(solution_str=said, reward="cell+batch", **ROW)["score"] == dense
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize(
    "said",
    [
        "T cell | B cell",
        "<think>So.</think>\n<answer>T cell | B cell",  # cut off
        "<think>So.</think>\n<answer>T cell | B cell</answer> Sure.",
        "So.</think>\n<answer>T cell | B cell</answer>",
    ],
)
def test_what_is_not_in_the_format_costs(said):
    assert compute_score(solution_str=said, num_turns=2, **ROW)["score"] == -1


def test_a_block_that_the_prompt_has_opened_counts_as_opened():
    row = {**ROW, "extra_info": {**ROW["extra_info"], "opened": True}}
    assert compute_score(solution_str="So.</think>\n<answer>T cell | B cell</answer>", **row)[
        "score"
    ] == 1  # fmt: skip


def test_an_unknown_reward_is_refused():
    with pytest.raises(UseError, match="there is no reward 'dense'; expected one of batch"):
        compute_score(solution_str="", reward="dense", **ROW)
