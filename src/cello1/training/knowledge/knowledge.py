"""The knowledge stage: a file of questions and answers, and a manifest of their sources.

The stage precedes reasoning traces: ``cello1 sft`` trains on the file as it does on traces. Sources
and studies that were left out are recorded in ``manifest.json``, and in the record of every model
trained on the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cello1.atlas import Atlas
from cello1.errors import InputError, brief
from cello1.puzzles.prompt import Message
from cello1.recipes import KnowledgeSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Count, Run, file_hash, replacing, write_json
from cello1.training.knowledge.questions import Facts, Question

FILE, MANIFEST = "knowledge.parquet", "manifest.json"
SCHEMA = pa.schema([(n, pa.string()) for n in ("system_msg", "user_msg", "assistant_msg", "kind")])
_MOST_DRAWN = 20  # most draws per question: small atlases have few distinct ones
_TELL = 500


@takes(KnowledgeSettings)
def knowledge(
    out: str | Path,
    settings: KnowledgeSettings | str | Path | None = None,
    *,
    watch: Count = lambda done, total: None,
    **changes: Any,
) -> Path:
    """Write questions and answers from the atlas; the same settings give the same file.

    Parameters
    ----------
    out
        The run folder, for ``knowledge.parquet`` and ``manifest.json``. A complete file is not made
        again.
    settings, **changes
        :class:`cello1.recipes.KnowledgeSettings`, a recipe with a section `knowledge`, or None for
        the defaults; and fields by keyword, which win.
    watch
        Called with (questions drawn, questions in all).

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When the atlas cannot be read, or has too few types.
    """
    settings = resolve(KnowledgeSettings, settings, changes)
    folder = Path(out)
    atlas = Atlas.read(settings.atlas, only=settings.atlas_only, without=settings.without)
    facts = Facts(atlas, settings.genes)
    config = {
        **settings.model_dump(mode="json"),
        "sources": [source.name for source in atlas.sources],
    }
    file = folder / FILE
    with Run(folder, command="knowledge", config=config, inputs=[]):
        if not (file.exists() and (folder / MANIFEST).exists()):
            questions = list(_distinct(facts, settings, watch))
            _write(file, questions)
            write_json(folder / MANIFEST, manifest(facts, settings, questions, file))
    return file


def _distinct(facts: Facts, settings: KnowledgeSettings, watch: Count) -> Iterator[Question]:
    """Draw questions until there are enough distinct ones."""
    seen: set[tuple[Message, ...]] = set()
    wanted = settings.questions
    for number in count():
        if number >= _MOST_DRAWN * wanted:
            raise InputError(
                f"the atlas gives only {len(seen)} different questions, {wanted} were asked for; "
                "ask for fewer, or name an atlas with more types"
            )
        question = facts.ask(settings.seed, number)
        if question.turns in seen:
            continue
        seen.add(question.turns)
        yield question
        if len(seen) % _TELL == 0 or len(seen) == wanted:
            watch(len(seen), wanted)
        if len(seen) == wanted:
            return


def _write(path: Path, questions: list[Question]) -> None:
    rows = [
        {
            "system_msg": question.turns[0].content,
            "user_msg": question.turns[1].content,
            "assistant_msg": question.response,
            "kind": question.kind,
        }
        for question in questions
    ]
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")


def manifest(
    facts: Facts, settings: KnowledgeSettings, questions: list[Question], file: Path
) -> dict[str, Any]:
    """Return counts of the questions, their sources, and what was left out."""
    return {
        "questions": len(questions),
        "kinds": dict(sorted(Counter(q.kind for q in questions).items())),
        "types": facts.labels,
        "seed": settings.seed,
        "left_out": sorted(settings.without),
        "atlas": None if settings.atlas is None else str(settings.atlas),
        "sources": [
            {"name": s.name, "kind": s.kind, "study": s.study, "licence": s.licence}
            for s in facts.atlas.sources
        ],
        "file": file_hash(file),
    }


def knowledge_file(source: str | Path) -> Path:
    """Return the file of questions that a path names: itself, or that of a run folder.

    Raises
    ------
    InputError
        When the file is missing.
    """
    path = Path(source)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"knowledge: {path} is missing; make it with `cello1 knowledge`")
    return path


def read_questions(source: str | Path) -> list[Question]:
    """Read questions and answers of ``cello1 knowledge``, or of any file with these columns.

    Raises
    ------
    InputError
        When the file is missing or of another kind, or a row lacks its question or answer.
    """
    path = knowledge_file(source)
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {brief(str(error))}") from error
    found = []
    for number, row in enumerate(rows, start=1):
        asked, answer = row.get("user_msg"), row.get("assistant_msg")
        if not (isinstance(asked, str) and isinstance(answer, str) and asked and answer):
            raise InputError(
                f"{path}, row {number}: expected a question in user_msg and its answer in "
                f"assistant_msg; the columns are {', '.join(row)}"
            )
        system = [Message("system", row["system_msg"])] if row.get("system_msg") else []
        found.append(Question(row.get("kind"), (*system, Message("user", asked)), answer))
    if not found:
        raise InputError(f"{path} holds no question; make one with `cello1 knowledge`")
    return found


def left_out(source: str | Path) -> list[str] | None:
    """Return the studies left out according to a file's manifest; None without a manifest."""
    path = knowledge_file(source).parent / MANIFEST
    try:
        told = json.loads(path.read_text("utf-8")).get("left_out")
    except (OSError, ValueError, AttributeError):
        return None
    return [str(name) for name in told] if isinstance(told, list) else None
