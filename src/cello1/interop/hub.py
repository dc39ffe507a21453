"""Repositories for the Hugging Face hub: a data set or a model with its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from cello1.cells.audit import Audit, audit
from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import SCHEMA, write_puzzles
from cello1.runs import appearing, file_hash, write_atomic

PAPER = "https://arxiv.org/abs/2506.02911"
CITATION = """@article{fang2025cello1,
  title = {Cell-o1: Training LLMs to Solve Single-Cell Reasoning Puzzles with Reinforcement Learning},
  author = {Fang, Yin and Jin, Qiao and Xiong, Guangzhi and Jin, Bowen and Zhong, Xianrui and Ouyang, Siru and Zhang, Aidong and Han, Jiawei and Lu, Zhiyong},
  journal = {arXiv preprint arXiv:2506.02911},
  year = {2025}
}"""  # noqa: E501
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_LABELS = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")
_CR = "http://mlcommons.org/croissant/"
_COLUMNS = {
    "system_msg": "Instructions to the solver.",
    "user_msg": "Context, the cells' top genes and the candidate types.",
    "assistant_msg": "The types in the order of the cells, separated by ' | '.",
    "id": "Hash of the question.",
    "dataset": "Data set that the cells come from.",
    "donor_id": "Donor of the cells.",
    "tissue": "Tissue of the cells.",
    "disease": "Disease of the donor.",
    "n_cells": "Number of cells.",
    "meta": "What else is known, as JSON.",
}


def export_puzzles(
    splits: Mapping[str, Sequence[Puzzle]],
    folder: Path,
    *,
    repo: str,
    licence: str = "cc-by-4.0",
    published: str,
) -> Audit:
    """Write a data set repository: Parquet, a card with configs and leak audit, Croissant.

    Parameters
    ----------
    splits
        Split -> puzzles.
    folder
        A new folder.
    repo
        ``owner/name`` on the hub.
    licence
        Licence of the data, by its name on the hub.
    published
        Date of publication, ``YYYY-MM-DD``.

    Returns
    -------
    Audit
        The findings on leaks, as in the card.

    Raises
    ------
    InputError
        When the folder exists or there is no puzzle.
    UseError
        When `repo` is not ``owner/name``.
    """
    _check_repo(repo)
    if not any(splits.values()):
        raise InputError("no puzzle to export")
    findings = audit(splits)
    with appearing(folder) as part:
        files = {}
        for name, puzzles in splits.items():
            path = part / "data" / f"{name}-00000-of-00001.parquet"
            write_puzzles(puzzles, path)
            files[name] = path
        _write(part / "README.md", _dataset_card(splits, files, findings, repo, licence))
        croissant = _croissant(files, part, repo, licence, published)
        _write(part / "croissant.json", json.dumps(croissant, indent=1) + "\n")
    return findings


def export_model(
    model: Path, folder: Path, *, repo: str, results: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write a model repository: the model's files and its card, with results as the hub reads them.

    Parameters
    ----------
    model
        A Hugging Face folder with safetensors.
    folder
        A new folder.
    repo
        ``owner/name`` on the hub.
    results
        Name of a set of puzzles -> metrics (the ``metrics.json`` of a run).

    Raises
    ------
    InputError
        When the folder exists, or the model has no safetensors.
    """
    _check_repo(repo)
    if not (model / "config.json").is_file() or not any(model.glob("*.safetensors")):
        raise InputError(f"{model} is no model: expected config.json and *.safetensors")
    card = (model / "README.md").read_text("utf-8") if (model / "README.md").exists() else ""
    head, body = _split_card(card)
    head |= {"pipeline_tag": "text-generation", "library_name": "transformers"}
    head["tags"] = sorted({*head.get("tags", ()), "single-cell", "cell-type-annotation", "cello1"})
    if results:
        name = repo.partition("/")[2]
        head["model-index"] = [{"name": name, "results": [*_results(results)]}]
    with appearing(folder) as part:
        for path in sorted(model.iterdir()):
            if path.is_file() and path.suffix in _MODEL_FILES:
                shutil.copyfile(path, part / path.name)
        _write(part / "README.md", _card(head, body or f"# {repo}\n"))


def metrics_of(runs: Sequence[Path]) -> dict[str, Any]:
    """Read the metrics of evaluated runs.

    Raises
    ------
    InputError
        When a run was not evaluated.
    """
    found = {}
    for run in runs:
        try:
            found[run.name] = json.loads((run / "metrics.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{run} has no metrics.json; run cello1 eval {run} first") from error
    return found


_MODEL_FILES = {".json", ".safetensors", ".jinja", ".txt", ".model", ".md"}


def push(folder: Path, repo: str, kind: str) -> str:
    """Upload a repository and return its address; the caller must have asked the user.

    Raises
    ------
    InputError
        When the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repo, repo_type=kind, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder))
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{repo} cannot be uploaded ({reason}); log in with: hf auth login") from (
            error
        )


def _check_repo(repo: str) -> None:
    owner, slash, name = repo.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise UseError(f"{repo!r} is no repository; expected owner/name")


def _write(path: Path, text: str) -> None:
    write_atomic(path, text.encode())


def _card(head: Mapping[str, Any], body: str) -> str:
    text = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n{body.lstrip()}"


def _split_card(card: str) -> tuple[dict[str, Any], str]:
    if not card.startswith("---\n"):
        return {}, card
    head, _, body = card[4:].partition("\n---\n")
    read = yaml.safe_load(head)
    return (read if isinstance(read, dict) else {}), body


def _results(results: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield metrics in the hub's schema of model cards."""
    names = {"batch_accuracy": "Batch-level accuracy", "cell_accuracy": "Cell-level accuracy"}
    for where, measured in results.items():
        overall = measured.get("overall")
        if not isinstance(overall, Mapping):
            raise InputError(f"{where}: no metrics; expected the metrics.json of cello1 eval")
        yield {
            "task": {"type": "text-generation", "name": "Cell type annotation puzzles"},
            "dataset": {"type": "cellpuzzles", "name": where},
            "metrics": [
                {"type": key, "name": name, "value": round(float(overall[key]["estimate"]), 4)}
                for key, name in names.items()
            ],
        }


def _dataset_card(
    splits: Mapping[str, Sequence[Puzzle]],
    files: Mapping[str, Path],
    findings: Audit,
    repo: str,
    licence: str,
) -> str:
    total = sum(map(len, splits.values()))
    size = _LABELS[sum(total >= bound for bound in _SIZES)]
    features = [
        {"name": field.name, "dtype": "int32" if field.name == "n_cells" else "string"}
        for field in SCHEMA
    ]
    head = {
        "license": licence,
        "language": ["en"],
        "pretty_name": repo.partition("/")[2],
        "task_categories": ["text-generation"],
        "tags": ["biology", "single-cell", "cell-type-annotation", "reasoning", "cello1"],
        "size_categories": [size],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": name, "path": f"data/{path.name}"} for name, path in files.items()
                ],
            }
        ],
        "dataset_info": {
            "features": features,
            "splits": [{"name": name, "num_examples": len(ps)} for name, ps in splits.items()],
        },
    }
    every = [puzzle for puzzles in splits.values() for puzzle in puzzles]
    sets = sorted({str(p.meta["dataset"]) for p in every if p.meta.get("dataset")})
    sizes = "\n".join(f"| {name} | {len(ps):,} |" for name, ps in splits.items())
    body = f"""# {repo}

Puzzles of cell type annotation: the top genes of N cells of one donor, what is known of the donor,
and the types on offer; each type belongs to exactly one cell. The layout is that of CellPuzzles
([arXiv 2506.02911]({PAPER})); the columns `system_msg`, `user_msg` and `assistant_msg` come first.

| split | puzzles |
|---|---|
{sizes}

Made by cello1 {metadata.version("cello1")} from {_list(sets) or "data sets that are not named"}.

## Leaks

{_leaks(findings)}

## Load

```python
from datasets import load_dataset

puzzles = load_dataset("{repo}")
```

```
cello1 solve {repo} --split test --out runs/test
```

## What not to conclude

Labels come from clustering, often by the same marker genes that a solver uses: agreement with them
is no proof of truth. A batch counts only when every cell is right.

## Citation

```bibtex
{CITATION}
```
"""
    return _card(head, body)


def _list(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + more


def _leaks(findings: Audit) -> str:
    """Return the section of the card on what splits share, and what cannot be checked."""
    if not findings.shared:
        return "There is one split, so nothing can leak from one to another."

    def told(number: int | None) -> str:
        return "unknown" if number is None else f"{number:,}"

    rows = [
        f"| {s.first}, {s.second} | {told(s.donors)} | {told(s.cells)} | {s.gene_lists:,} |"
        for s in findings.shared
    ]
    head = "| splits | shared donors | shared cells | identical gene lists |\n|---|---|---|---|\n"
    marks = "".join(f"\n- {mark}" for mark in findings.marks)
    return head + "\n".join(rows) + ("\n" + marks if marks else "")


def _croissant(
    files: Mapping[str, Path], root: Path, repo: str, licence: str, published: str
) -> dict[str, Any]:
    """Describe the files in Croissant 1.0 (https://docs.mlcommons.org/croissant)."""
    distribution = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": str(path.relative_to(root)),
            "encodingFormat": "application/x-parquet",
            "sha256": file_hash(path).removeprefix("sha256:"),
        }
        for name, path in files.items()
    ]
    record_sets = [
        {
            "@type": "cr:RecordSet",
            "@id": f"{name}_rows",
            "name": f"{name}_rows",
            "description": f"The puzzles of the split {name}.",
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"{name}_rows/{field.name}",
                    "name": field.name,
                    "description": _COLUMNS[field.name],
                    "dataType": "sc:Integer" if field.name == "n_cells" else "sc:Text",
                    "source": {
                        "fileObject": {"@id": name},
                        "extract": {"column": field.name},
                    },
                }
                for field in SCHEMA
            ],
        }
        for name in files
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": f"{_CR}1.0",
        "name": repo.partition("/")[2],
        "description": "Puzzles of cell type annotation: cells of one donor and candidate types.",
        "url": f"https://huggingface.co/datasets/{repo}",
        "license": f"https://spdx.org/licenses/{licence.upper()}.html",
        "citeAs": CITATION,
        "datePublished": published,
        "version": "1.0.0",
        "creator": {"@type": "Organization", "name": repo.partition("/")[0]},
        "keywords": ["single-cell", "cell type annotation"],
        "distribution": distribution,
        "recordSet": record_sets,
    }


_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs",
    "column": "cr:column", "conformsTo": "dct:conformsTo", "cr": _CR,
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract",
    "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "sc": "https://schema.org/", "separator": "cr:separator",
    "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
