from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run; `--hypothesis-profile=default` searches for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def cells_dir(shared: Path) -> Path:
    return shared / "data" / "cells"
