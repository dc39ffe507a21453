from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cello1.annotate.prepare import make_solver
from cello1.puzzles.prompt import response_text
from cello1.recipes import SolveSettings
from cello1.scoring.score import score
from cello1.solvers.base import Failure, Response
from cello1.solvers.choose import choose_solver
from cello1.solvers.run import record_of, remarks
from cello1.solvers.vote import VotingSolver


class Oracle:
    """Answers right but for some cells, which it gives each other's types, in some samples."""

    name = "oracle"

    def __init__(self, k, wrong_in=(), fails_in=(), seen=None):
        self.k, self.wrong, self.fails, self.seen = k, k in wrong_in, k in fails_in, seen
        self.settings = {"solver": "oracle"}

    def solve(self, puzzles, on_done):
        for puzzle in puzzles:
            if self.seen is not None:
                self.seen.append((self.k, puzzle))
            if self.fails:
                on_done(puzzle.id, Failure("no luck"))
                continue
            labels = list(puzzle.answer)
            if self.wrong:
                a, b = labels.index("B cell"), labels.index("T cell")
                labels[a], labels[b] = labels[b], labels[a]
            text = response_text(f"sample {self.k}", tuple(labels))
            on_done(puzzle.id, Response(text, completion_tokens=5, logprob=-float(self.k)))


def vote(answers, toys, samples=5, permute=True, **oracle):
    solver = VotingSolver(lambda k: Oracle(k, **oracle), samples, permute=permute)
    return answers(solver, toys)


@pytest.mark.parametrize("permute", [False, True])
def test_the_majority_wins_and_answers_are_mapped_back(answers, toys, permute):
    results = vote(answers, toys, permute=permute, wrong_in=(1, 3))
    assert all(score(p, results[p.id].text).exact for p in toys)
    assert {r.agreement for r in results.values()} == {0.8}  # half the cells by 5, half by 3
    assert {r.completion_tokens for r in results.values()} == {25}


class Loose(Oracle):
    """Says the same, but no sample is in the format."""

    def solve(self, puzzles, on_done):
        def loosely(puzzle_id, result):
            labels = result.text.partition("<answer>")[2].partition("</answer>")[0].split(" | ")
            lines = [f"Cell {i}: **{label}**" for i, label in enumerate(labels, start=1)]
            on_done(puzzle_id, replace(result, text="So it is:\n" + "\n".join(lines)))

        super().solve(puzzles, loosely)


@pytest.mark.parametrize("tolerant", [False, True])
def test_votes_out_of_the_format_count_only_where_answers_are_read_tolerantly(
    answers, toys, tolerant
):
    some = toys[:20]
    solver = VotingSolver(lambda k: Loose(k), 3, permute=True, tolerant=tolerant)
    results = answers(solver, some)
    assert {r.votes["unreadable"] for r in results.values()} == {0 if tolerant else 3}
    found = [score(p, results[p.id].text) for p in some]
    # A vote is written in the format: it must not make good what no sample did.
    assert {s.exact for s in found} == {tolerant}
    assert {s.format_valid for s in found} == {tolerant}


def test_annotate_counts_the_votes_that_a_person_would_read():
    asked = SolveSettings(solver="openai:m", base_url="http://localhost:9/v1", samples=3)
    assert make_solver(asked, {"train": [], "validation": []}).tolerant
    assert not choose_solver(asked).tolerant


def test_samples_see_other_orders_but_the_first_sees_the_puzzle_itself(answers, toys):
    seen = []
    vote(answers, toys[:10], seen=seen)
    assert [p for k, p in seen if k == 0] == toys[:10]
    orders = Counter(p.cells for k, p in seen)
    assert len(orders) > 30
    for _, puzzle in seen:
        original = next(p for p in toys if set(p.cells) == set(puzzle.cells))
        pairs = dict(zip(original.cells, original.answer, strict=True))
        assert tuple(pairs[c] for c in puzzle.cells) == puzzle.answer


def test_the_likeliest_response_that_agrees_is_kept(answers, toys):
    results = vote(answers, toys, permute=False, wrong_in=(0,))
    assert all("<think>sample 1</think>" in r.text for r in results.values())


def test_without_one_the_vote_is_the_reason(answers, toys):
    # The first sample is in the puzzle's own order, and wrong; hardly any other is in that order.
    results = vote(answers, toys, permute=True, wrong_in=(0,))
    assert sum("5 answers were pooled" in r.text for r in results.values()) > 40
    assert all(score(p, results[p.id].text).exact for p in toys)


def test_votes_become_probabilities_that_respect_one_to_one(answers, toys):
    result = vote(answers, toys[:1], wrong_in=(1, 3))[toys[0].id]
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)
    sure = toys[0].answer.index("monocyte"), toys[0].candidates.index("monocyte")
    torn = toys[0].answer.index("B cell"), toys[0].candidates.index("B cell")
    assert result.probabilities[sure] > result.probabilities[torn] > 0.5


def test_failed_samples_do_not_vote_and_if_all_fail_the_puzzle_is_owed(answers, toys):
    results = vote(answers, toys[:5], fails_in=(1, 2))
    assert {r.agreement for r in results.values()} == {1.0}
    assert all(isinstance(r, Failure) for r in vote(answers, toys[:5], fails_in=range(5)).values())


def test_malformed_and_foreign_answers_do_not_vote(answers, toys):
    class Noise(Oracle):
        def solve(self, puzzles, on_done):
            if self.k < 2:
                super().solve(puzzles, on_done)
                return
            for puzzle in puzzles:
                text = "nonsense" if self.k % 2 else response_text("", ("neuron",) * 4)
                on_done(puzzle.id, Response(text))

    results = answers(VotingSolver(Noise, 6), toys[:5])
    assert all(score(p, results[p.id].text).exact for p in toys[:5])
    assert {round(r.agreement, 3) for r in results.values()} == {0.333}


def test_a_real_model_votes_the_same_way_twice(language, answers, toys):
    from cello1.solvers.local.language import LanguageSolver

    def sampler(k):
        return LanguageSolver(language, valid=True, temperature=1.0, sample=k, max_new_tokens=60)

    first = answers(VotingSolver(sampler, 3, permute=True), toys[:12])
    again = answers(VotingSolver(sampler, 3, permute=True), toys[:12])
    assert {i: r.text for i, r in first.items()} == {i: r.text for i, r in again.items()}
    assert all(score(p, first[p.id].text).reason == "" for p in toys[:12])


def test_unreadable_and_failed_answers_are_counted_and_nothing_is_made_up(answers, toys):
    class Odd:
        name, settings = "odd", {}

        def __init__(self, k):
            self.k = k

        def solve(self, puzzles, on_done):
            for number, puzzle in enumerate(puzzles):
                right = response_text("", puzzle.answer)
                if self.k == 0 or number == 1:
                    on_done(puzzle.id, Response("I do not know."))
                else:
                    on_done(puzzle.id, Failure("no") if self.k == 1 else Response(right))

    results = answers(VotingSolver(Odd, 4), toys[:2])
    first, second = (results[p.id] for p in toys[:2])
    assert score(toys[0], first.text).exact
    assert first.votes == {"answers": 3, "unreadable": 1, "failed": 1}
    assert (second.text, second.scores) == ("I do not know.", None)
    assert second.votes == {"answers": 4, "unreadable": 4, "failed": 0}
    records = {i: record_of(i, r) for i, r in results.items()}
    assert remarks(toys, records) == [
        "5 of 7 sampled answers could not be read: no votes",
        "1 sampled answers never came: fewer votes than asked for",
    ]
