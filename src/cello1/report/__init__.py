"""The report: one page with the figures, the training and every puzzle of some runs.

The package itself can be called: ``cello1.report(adata, "page.html")`` makes the page of an
annotation, ``cello1.report(["runs/a", "runs/b"], "report.html")`` that of runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A module that is also the verb it is named after: importing it must not hide the verb."""

    def __call__(
        self, what: Any, path: str | Path | None = None, *, key: str = "cello1"
    ) -> str | Path:
        """Make a page of an annotated AnnData, or of run folders.

        Parameters
        ----------
        what
            An AnnData annotated by :func:`cello1.tl.annotate`, or a run folder or several.
        path
            Where to write the page. That of an annotation is only returned without one.
        key
            The `key_added` of the annotation.

        Returns
        -------
        str or Path
            The page of an annotation as HTML; the path of the report of runs.

        Raises
        ------
        InputError
            When there is no annotation under this key, or a folder is not a run.
        """
        if isinstance(what, str | Path | Sequence):
            from cello1.report.page import report

            folders = [what] if isinstance(what, str | Path) else list(what)
            return report([Path(folder) for folder in folders], Path(path or "report.html"))
        from cello1.annotate.page import report as annotation

        return annotation(what, path, key=key)


sys.modules[__name__].__class__ = _Callable
