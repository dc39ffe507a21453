"""The command line: `cello1 VERB`, one file per verb."""

from cello1.cli.app import app, main

__all__ = ["app", "main"]
