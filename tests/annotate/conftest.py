from __future__ import annotations

import anndata
import pytest
from blood import blood


@pytest.fixture
def cells() -> anndata.AnnData:
    return blood()
