"""Annotate a data set: read it, compare its clusters, decide, and give reasons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cello1.annotate.ask import workspace
from cello1.annotate.data import Data, open_data
from cello1.annotate.decide import decide
from cello1.annotate.prepare import prepare, species
from cello1.annotate.table import Annotation
from cello1.errors import UseError
from cello1.recipes import AnnotateSettings, SolveSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Watch


@takes(AnnotateSettings)
def annotate(
    adata: Any,
    settings: AnnotateSettings | None = None,
    *,
    groupby: str | None = None,
    leiden: float | None = None,
    candidates: str | Path | Iterable[str] | None = None,
    tissue: str | None = None,
    organism: str | None = None,
    solver: str | SolveSettings | None = None,
    beside: str | None = None,
    puzzles: str | Path | None = None,
    aliases: str | Path | None = None,
    key_added: str = "cello1",
    run: str | Path | None = None,
    copy: bool = False,
    watch: Watch = lambda what, share: None,
    **changes: Any,
) -> Any:
    """Label the clusters (or cells) of a data set, each compared with all other cells.

    Parameters
    ----------
    adata
        Cells, in memory, backed, lazy or a view, with counts or log-normalised values; `X` is
        never changed.
    settings, **changes
        :class:`cello1.recipes.AnnotateSettings`, and its fields by keyword, such as
        ``unit="cell"``. Classical solvers make no random choices.
    groupby
        Column of obs with the clusters. By default the first common one (``leiden``,
        ``louvain``, ``seurat_clusters``, ...); without any, clusters are computed.
    leiden
        Compute Leiden clusters at this resolution instead, into ``obs[key_added + "_leiden"]``.
    candidates
        Types on offer: a list, a text file with one on each line, or a column such as
        ``reference.obs["cell_type"]``; common short names (``NK``, ``CD14 Mono``) are
        understood. By default the known types of the tissue.
    tissue
        Tissue of the cells; by default that of obs.
    organism
        ``human`` or ``mouse``; by default that of the data. Mouse genes are mapped to the human
        genes of the same symbol.
    solver
        ``atlas``, ``markers``, ``centroids`` (learns from `puzzles`), ``mini``, ``hf:FOLDER``,
        ``openai:MODEL``, or settings with all their options; by default the one of
        :class:`cello1.recipes.AnnotateSolveSettings`.
    beside
        A classical solver whose evidence is pooled with the votes of a language model.
    puzzles
        Folder of a build: `centroids` learn from its training split, and the confidence is fitted
        on its validation split.
    aliases
        HGNC's table of alias and previous symbols, to recognise genes in reasons; by default the
        names of some 100 proteins are known.
    key_added
        Name of the result in obs and uns.
    run
        Folder for questions and answers of a language model, from which an interrupted call
        resumes.
    copy
        Return an annotated copy, in memory, and leave `adata` unchanged.
    watch
        Called with (what is being done, share done).

    Returns
    -------
    AnnData or None
        The copy, if requested. Otherwise `adata` has new fields: categorical ``obs[key_added]``,
        ``obs[key_added + "_ontology_term_id"]``, ``obs[key_added + "_coarse"]`` (broad type) and
        ``obs[key_added + "_fine"]`` (the best candidate); ``obs[key_added + "_confidence"]`` in
        [0, 1], of the label, or of the best candidate where that is ``unknown`` or ``none of
        these``; and ``uns[key_added]``, which :func:`cello1.get.annotation` reads.

    Raises
    ------
    UseError
        When settings contradict each other.
    InputError
        When the data cannot be used, or batches remain unanswered.
    """
    chosen = resolve(AnnotateSettings, settings, changes)
    options = chosen.model_dump() | {
        "groupby": groupby, "leiden": leiden, "candidates": candidates, "tissue": tissue,
        "organism": organism, "solver": solver, "beside": beside, "puzzles": puzzles,
        "aliases": aliases, "key_added": key_added, "run": run,
    }  # fmt: skip
    if adata.isbacked and adata.is_view and not copy:
        raise UseError(
            "adata is a view of a file, which can hold no labels; annotate what it is a view of, "
            "or ask for a copy, which is held in memory (copy=True)"
        )
    with open_data(adata, layer=chosen.layer, organism=species(organism)) as data:
        found = annotate_data(data, watch=watch, **options)
    if not copy:
        found.write_to(adata)
        return None
    labelled = adata.to_memory() if adata.isbacked else adata.copy()
    found.write_to(labelled)
    return labelled


def annotate_data(
    data: Data, *, watch: Watch = lambda what, share: None, **options: Any
) -> Annotation:
    """Annotate an open data set; `options` are those of :func:`annotate`."""
    prepared = prepare(data, options, watch)
    with workspace(options.get("run")) as folder:
        return decide(data, prepared, options, folder, watch)
