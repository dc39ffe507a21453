"""The settings of an atlas: its sources, told one by one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cello1.recipes.section import Section, Seed


class AtlasSource(Section):
    """One source: a table of mean profiles, annotated cells, or a list of markers."""

    name: Annotated[str, Field(min_length=1, description="Unique name, shown to users.")]
    profiles: Annotated[
        str | None, Field(description="Mean profiles, genes x types (Parquet or CSV).")
    ] = None
    cells: Annotated[
        str | None, Field(description="Annotated cells (.h5ad) or puzzles with answers (.parquet).")
    ] = None
    markers: Annotated[
        str | None,
        Field(
            description="Marker table (PanglaoDB, ScType, Cell Marker Accordion, CSV), or one that "
            "comes with the package: own (97 types) or development (developing tissues)."
        ),
    ] = None
    study: Annotated[str | None, Field(description="Study it comes from [its name].")] = None
    licence: Annotated[str, Field(description="Licence of the data.")] = "not stated"
    citation: Annotated[str, Field(description="What to cite.")] = ""
    tissue: Annotated[str, Field(description="Of all its cells, where the file does not say.")] = ""
    disease: Annotated[str, Field(description="Of all its cells, where the file does not say.")] = (
        ""
    )
    cell_types: Annotated[
        str | None, Field(description="CSV that curates the columns of mean profiles.")
    ] = None
    resources: Annotated[
        tuple[str, ...], Field(description="Accordion: the collections to take [all].")
    ] = ()
    cell_type_key: Annotated[str, Field(description="Cells: obs column of the type.")] = "cell_type"
    layer: Annotated[str | None, Field(description="Cells: matrix to rank.")] = None

    @model_validator(mode="after")
    def _one_file(self) -> AtlasSource:
        given = [k for k in ("profiles", "cells", "markers") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"source {self.name!r} names {' and '.join(given) or 'no file'}; expected exactly "
                "one of profiles, cells and markers"
            )
        return self


class AtlasSettings(Section):
    """What an atlas is made of."""

    data: Annotated[str, Field(description="Folder that files are relative to [the recipe's].")] = (
        ""
    )
    sources: Annotated[tuple[AtlasSource, ...], Field(description="The sources.")] = ()
    aliases: Annotated[
        str | None, Field(description="HGNC's table of other names, to write the symbols anew.")
    ] = None
    approved: Annotated[
        str | None, Field(description="CSV with the column symbol: all current symbols.")
    ] = None
    draws: Annotated[int, Field(ge=10, description="Cells drawn from every mean profile.")] = 100
    seed: Seed = 0

    @model_validator(mode="after")
    def _named_apart(self) -> AtlasSettings:
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two sources are named {twice[0]!r}; give every source a name of its own"
            )
        return self
