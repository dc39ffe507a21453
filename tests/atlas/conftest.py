"""A small atlas of three types, one marker list, and files to build it from."""

from pathlib import Path

import pytest
from atlas_tables import profiles

from cello1.atlas import Atlas
from cello1.atlas.build import build_atlas
from cello1.recipes.atlas import AtlasSettings


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an atlas of one table of each of two studies, and one of markers."""
    home = tmp_path_factory.mktemp("atlas")
    profiles(home / "one.csv")
    profiles(home / "two.csv", ("B cell", "hepatocyte", "pancreatic D cell"))
    (home / "markers.csv").write_text(
        "cell_type,gene,weight\nB cell,CD79A,1\nB cell,CD3D,-1\nnatural killer cell,NKG7,1\n"
        "natural killer cell,GNLY,1\nhepatocyte,ALB,1\n"
    )
    settings = AtlasSettings.model_validate(
        {
            "sources": [
                {"name": "one", "profiles": "one.csv", "tissue": "blood", "study": "first"},
                {"name": "two", "profiles": "two.csv", "tissue": "liver", "study": "second"},
                {"name": "list", "markers": "markers.csv"},
            ]
        }
    )
    build_atlas(settings, home / "made", home)
    return home / "made"


@pytest.fixture(scope="session")
def small(folder: Path) -> Atlas:
    """Return that atlas, without the embedded one."""
    return Atlas.read(folder, only=True)
