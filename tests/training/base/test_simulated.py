"""Simulated evidence is calibrated, in the words of the real one, and not always right."""

import numpy as np
import pytest
from base_toys import as_puzzle

from cello1.puzzles.prompt import Suggestion, evidence_section, with_evidence
from cello1.training.base.practice import Size
from cello1.training.base.simulated import likeness, simulate


def test_percentages_are_as_often_right_as_they_say(practice, layout):
    rng = np.random.default_rng(0)
    said, right = [], []
    for i in range(600):
        draft = practice.draw(0, i, Size(4, 20, 1, plain=True))
        for cell, gold in zip(simulate(draft, layout.alike, rng).cells, draft.gold, strict=True):
            for j, percent in cell:
                said.append(percent / 100)
                right.append(j == gold)
    said, right = np.array(said), np.array(right)
    for low, high in ((0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1)):
        here = (said >= low) & (said < high)
        assert here.sum() > 20
        assert right[here].mean() == pytest.approx(said[here].mean(), abs=0.05)


def test_likeness_is_of_types_that_genes_tell_alike():
    alike = likeness(np.array([[1, 1, 0], [1, 0.9, 0], [0, 0, 1], [0, 0, 0]], np.float32))
    assert alike[0, 1] > 0.99
    assert alike[0, 2] == pytest.approx(0)
    assert np.diag(alike).tolist() == [1, 1, 1, 1]


def test_the_tokens_are_those_of_the_section_that_the_prompt_would_have(practice, layout):
    for i in range(20):
        draft = practice.draw(0, i, Size(3, 30, 1, plain=True))
        lesson = layout.lesson(draft, np.random.default_rng(i), cite=True, evidence=True)
        text = layout.tokenizer.decode(lesson.prompt)
        assert layout.encode(text) == lesson.prompt
        # The same evidence, worded by the module that words the prompts.
        made = simulate(draft, layout.alike, _after_spelling(np.random.default_rng(i), draft))
        puzzle = as_puzzle(practice, draft)
        cells = [
            [
                Suggestion(
                    draft.names[j],
                    percent,
                    tuple(layout.gene_of[t] for t in lesson.cited[k][j]),
                )
                for j, percent in cell
            ]
            for k, cell in enumerate(made.cells)
        ]
        known = {how: [draft.names[j] for j in places] for how, places in made.known.items()}
        assert evidence_section(with_evidence(puzzle, cells, known)) in text


def _after_spelling(rng, draft):
    rng.random(len(draft.names))  # the layout draws a spelling for each name first
    return rng
