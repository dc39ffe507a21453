"""The settings of the game."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cello1.recipes.section import Section, Seed


class PlaySettings(Section):
    """What is played, by whom and where."""

    number: Annotated[int, Field(ge=1, description="Puzzles in this session.")] = 10
    player: Annotated[str, Field(description="Your name, for the record.")] = "human"
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    ] = 0
    seed: Seed = 0
