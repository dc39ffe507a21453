"""Keeps the libraries' own bars and notices off the screen; ours say what matters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars, deprecations and hints of transformers, TRL, PEFT and datasets."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar
    from transformers.utils import logging as shown

    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    shown.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="peft|trl|torch")
            yield
    finally:
        enable_progress_bar()
        shown.enable_progress_bar()  # type: ignore[no-untyped-call]
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
