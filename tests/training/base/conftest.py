"""One small table of mean profiles, and lessons drawn from it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from base_toys import COMMON, MARKERS, as_puzzle

from cello1.puzzles.table import read_puzzles
from cello1.training.base.base import _words
from cello1.training.base.layout import Layout, questions
from cello1.training.base.practice import Practice, Size, knowledge
from cello1.training.base.sources import gather
from cello1.training.base.tokens import make_tokenizer


@pytest.fixture
def profiles(tmp_path) -> Path:
    """Mean profiles of five types: markers high in their own, everything else alike."""
    rng = np.random.default_rng(0)
    genes = [*COMMON, *(g for markers in MARKERS.values() for g in markers)]
    table = pd.DataFrame({"gene": genes})
    for label, markers in MARKERS.items():
        means = rng.uniform(1.0, 3.0, len(genes))
        own = np.array([gene in markers for gene in genes])
        others = np.array([gene not in COMMON for gene in genes]) & ~own
        table[label] = np.where(own, 12.0, np.where(others, 0.02, means))
    path = tmp_path / "blood_means.parquet"
    table.to_parquet(path)
    return path


@pytest.fixture
def practice(profiles, toys) -> Practice:
    """Draws puzzles of the table and of the toys' cells."""
    return Practice(gather([profiles], None, [toys]), seed=0)


@pytest.fixture
def layout(practice) -> Layout:
    """Lays puzzles out with a tokenizer of the practice's own genes, types and words."""
    telling, listed = knowledge(practice)
    genes = [g for g, share in zip(practice.genes, listed, strict=True) if share > 0.05]
    tokenizer = make_tokenizer(genes, practice.sources.types, _words(practice), 900)
    return Layout(tokenizer, practice, telling)


@pytest.fixture
def laid_out():
    """Lay lessons out with a tokenizer, every label as one token, beside their puzzles."""

    def lay_out(tokenizer, tables):
        files = [Path(name) for name in tables["profiles"]]
        sources = gather(files, None, [read_puzzles(name) for name in tables["puzzles"]])
        practice = Practice(sources, seed=3, spelled=0.0)
        layout = Layout(tokenizer, practice, knowledge(practice)[0])
        lessons = []
        for i in range(4):
            draft = practice.draw(0, i, Size(3, 20, 1, plain=True))
            lesson = layout.lesson(draft, np.random.default_rng(i), cite=True)
            lessons.append((lesson, as_puzzle(practice, draft)))
        asked = questions(layout, [lesson for lesson, _ in lessons], tokenizer.pad_token_id)
        return layout, lessons, asked

    return lay_out
