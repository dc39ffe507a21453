"""The settings of cells that come from the CELLxGENE Census."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cello1.recipes.section import Section


class CensusSettings(Section):
    """Which cells of the Census are taken.

    The Census is described in https://chanzuckerberg.github.io/cellxgene-census; a release is
    pinned, since data sets change from one to the next.
    """

    census: Annotated[
        str, Field(description="Release of the Census, such as 2025-11-08.", min_length=1)
    ] = "2025-11-08"
    where: Annotated[
        str,
        Field(
            description="Filter of cells in the Census's words, such as \"disease == 'normal'\"."
        ),
    ] = ""
    organism: Annotated[
        Literal["homo_sapiens", "mus_musculus"], Field(description="Organism of the cells.")
    ] = "homo_sapiens"
    per_type: Annotated[
        int, Field(ge=1, description="Cells drawn at most of one donor and type before reading.")
    ] = 50
