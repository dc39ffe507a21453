"""Questions from the atlas: true, distinct, told whence, and learned by the stage that is there."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cello1.atlas import Atlas
from cello1.atlas.build import build_atlas
from cello1.cells.symbols import human_genes
from cello1.errors import InputError, UseError
from cello1.recipes import KnowledgeSettings, SftSettings, checked, read_recipe
from cello1.recipes.atlas import AtlasSettings
from cello1.scoring.ontology import above_of
from cello1.training.knowledge.knowledge import (
    MANIFEST,
    knowledge,
    left_out,
    read_questions,
)
from cello1.training.knowledge.questions import SHARES, Facts

TYPES = (
    "B cell", "natural killer cell", "classical monocyte", "hepatocyte", "fibroblast",
    "plasma cell", "endothelial cell", "platelet", "mast cell", "keratinocyte", "melanocyte",
    "astrocyte", "oligodendrocyte", "podocyte", "cardiac muscle cell", "adipocyte",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an atlas of sixteen types, each with ten genes of its own, of two studies."""
    home = tmp_path_factory.mktemp("atlas")
    rng = np.random.default_rng(0)
    genes = [g for g in sorted(human_genes()) if g.isalnum() and len(g) > 3][::20][:800]
    for name in ("one", "two"):
        means = rng.gamma(2.0, size=(len(genes), len(TYPES)))
        for j in range(len(TYPES)):
            means[10 * j : 10 * j + 10, j] *= 60
        table = pd.DataFrame(means, pd.Index(genes, name="gene"), TYPES)
        table.to_csv(home / f"{name}.csv")
    sources = [{"name": n, "profiles": f"{n}.csv", "study": f"study {n}"} for n in ("one", "two")]
    pairs = [(t, genes[10 * j + k]) for j, t in enumerate(TYPES) for k in range(10)]
    pd.DataFrame(pairs, columns=["cell_type", "gene"]).to_csv(home / "list.csv", index=False)
    sources.append({"name": "list", "markers": "list.csv", "study": "study list"})
    build_atlas(AtlasSettings.model_validate({"sources": sources}), home / "made", home)
    return home / "made"


@pytest.fixture(scope="module")
def facts(folder):
    return Facts(Atlas.read(folder, only=True), (10, 20))


@pytest.fixture(scope="module")
def asked(facts):
    return [facts.ask(0, i) for i in range(300)]


def listed(text):
    return [gene.strip(" .") for gene in text.split(", ")]


def test_all_kinds_are_asked_as_often_as_said(asked):
    number = Counter(q.kind for q in asked)
    for kind, share in SHARES.items():
        assert abs(number[kind] / len(asked) - share) < 0.08


def test_a_question_depends_on_its_number_alone(facts, asked):
    assert facts.ask(0, 17) == asked[17]
    assert facts.ask(1, 17) != asked[17]


def test_genes_that_are_named_speak_for_the_type(facts, asked):
    at = {gene: i for i, gene in enumerate(facts.atlas.genes)}
    row = dict(zip(facts.labels, facts.atlas.rows(facts.labels), strict=True))
    for question in (q for q in asked if q.kind in ("markers", "which")):
        text = question.turns[1].content
        label = max((a for a in facts.labels if a.casefold() in text.casefold()), key=len)
        genes = listed(question.response)
        assert genes
        assert all(row[label][at[gene]] > 0.5 for gene in genes)
        if question.kind == "which":
            shown = {gene for gene in re.split(r"[\s,:?.]+", text) if gene in at}
            assert {*genes} < shown
            wrong = shown - {*genes} - {*label.split()}
            assert sum(row[label][at[gene]] for gene in wrong) / len(wrong) < 0.1


def test_the_type_of_a_list_is_on_offer_beside_types_that_are_apart(facts, asked):
    key = dict(zip(facts.labels, facts.keys, strict=True))
    for question in (q for q in asked if q.kind == "type"):
        label, _, why = question.response.partition(": ")
        offered = [part for part in facts.labels if part in question.turns[1].content]
        assert label in offered
        assert len(offered) >= 4
        assert all(gene in question.turns[1].content for gene in listed(why.split(" speak")[0]))
        others = question.turns[1].content.split(" | ")
        assert not any(key.get(o) in above_of(key[label]) for o in others)


def test_the_manifest_says_whence_and_the_file_is_the_same_again(folder, tmp_path):
    asked = {"questions": 60, "atlas": folder, "atlas_only": True, "genes": (10, 20), "seed": 3}
    first = knowledge(tmp_path / "a", **asked, without=("study two",))
    again = knowledge(tmp_path / "b", **asked, without=("study two",))
    assert first.read_bytes() == again.read_bytes()
    told = json.loads((tmp_path / "a" / MANIFEST).read_text())
    assert told["questions"] == sum(told["kinds"].values()) == 60
    assert told["left_out"] == ["study two"] == left_out(tmp_path / "a")
    assert [s["name"] for s in told["sources"]] == ["one", "list"]
    questions = read_questions(tmp_path / "a")
    assert len({q.turns for q in questions}) == 60
    before = first.stat().st_mtime_ns
    assert knowledge(tmp_path / "a", **asked, without=("study two",)) == first  # there, and whole
    assert first.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="without"):
        knowledge(tmp_path / "a", **asked)


def test_what_a_killed_call_left_is_made_anew(folder, tmp_path):
    asked = {"questions": 10, "atlas": folder, "atlas_only": True, "genes": (10, 20)}
    file = knowledge(tmp_path, **asked)
    whole = file.read_bytes()
    (tmp_path / MANIFEST).unlink()
    file.write_bytes(b"torn")
    assert knowledge(tmp_path, **asked).read_bytes() == whole


def test_an_atlas_that_knows_too_little_says_so(folder, tmp_path, monkeypatch):
    asked = {"atlas": folder, "atlas_only": True, "genes": (10, 20)}
    monkeypatch.setattr(Facts, "ask", lambda self, seed, number, ask=Facts.ask: ask(self, seed, 0))
    with pytest.raises(InputError, match="only 1 different questions"):
        knowledge(tmp_path / "many", **asked, questions=10)
    with pytest.raises(InputError, match="no sources left"):
        knowledge(tmp_path / "none", **asked, without=("one", "two", "list"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.parquet", None, "make it with `cello1 knowledge`"),
        ("text.parquet", b"no parquet", "cannot be read as Parquet"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_questions(tmp_path / name)


def test_a_row_without_an_answer_is_named(tmp_path):
    rows = [{"user_msg": "a?", "assistant_msg": "b."}, {"user_msg": "c?", "assistant_msg": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    with pytest.raises(InputError, match="row 2: expected a question"):
        read_questions(tmp_path / "q.parquet")


def test_recipes_have_the_stage():
    for name in ("cell-o1-7b", "mini-gpu"):
        assert read_recipe(Path(f"recipes/{name}.yaml")).knowledge.questions == 40_000
    with pytest.raises(UseError, match="genes"):
        checked(KnowledgeSettings, {"genes": [30, 20]})


def test_it_is_learned_by_sft_and_checked_before(folder, tmp_path):
    pytest.importorskip("trl", reason="needs trl: pip install 'cello1[train]'")
    from sft_toys import make_model, make_tokenizer

    from cello1.solvers.local.prompter import Prompter
    from cello1.training.run.model_identity import read_record
    from cello1.training.sft.check import check_sft
    from cello1.training.sft.data import read_sft_data
    from cello1.training.sft.sft import sft

    asked = {"questions": 40, "genes": (5, 8), "atlas": folder, "atlas_only": True}
    file = knowledge(tmp_path / "k", **asked)
    questions = read_questions(file)
    texts = [" ".join(turn.content for turn in q.turns) + q.response for q in questions]
    model = make_model(tmp_path / "tiny", make_tokenizer(texts))
    settings = SftSettings(
        model=str(model), method="full", knowledge=(str(file.parent),), held_out=0.2,
        trainer={"max_steps": 2, "per_device_train_batch_size": 2,
                 "gradient_accumulation_steps": 1},
    )  # fmt: skip
    prompter = Prompter(model)
    data = read_sft_data(settings, prompter, 4_096)
    assert data.counts["questions"] == 40
    assert (len(data.learn), len(data.held_out), data.solve) == (32, 8, [])
    spelled = {prompter.vocabulary.text(e.response) for e in data.learn}
    assert all(any(s.startswith(q.response) for q in questions) for s in spelled)
    found = check_sft(settings)
    assert found.counts["questions"] == 40
    assert found.steps == 2
    made = sft(settings, tmp_path / "run")
    record = read_record(made)
    assert record["data"]["questions"] == 40
    with pytest.raises(UseError, match="no traces are named"):
        read_sft_data(SftSettings(model=str(model)), prompter, 4_096)
