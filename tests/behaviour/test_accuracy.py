import json
from collections import Counter

import pytest
from accuracy import Accuracy, check, check_genes, markdown, prose_parts, read_labels

from cello1.behaviour.detect import FLAGS
from cello1.errors import InputError

# What the detectors reach, rounded down: (precision, recall). A change that loses any of it fails,
# and docs/behaviour.md has to be written anew after one that gains.
REACHED = {
    "development": dict.fromkeys(FLAGS, (1.0, 1.0)),
    "held out": {
        "self_reflection": (1.0, 0.88),
        "curriculum": (1.0, 0.83),
        "elimination": (1.0, 0.6),
        "comparison": (1.0, 0.83),
    },
}


def part(labelled, name):
    return [item for item in labelled if item.labels["part"] == name]


def test_there_are_labels_enough_of_either_kind(labelled):
    assert len(labelled) >= 60
    for flag in FLAGS:
        there = Counter(item.labels[flag] for item in labelled)
        assert there[True] >= 10
        assert there[False] >= 40


@pytest.mark.parametrize("name", REACHED)
def test_detectors_are_as_right_as_the_docs_say(labelled, name):
    found = check(part(labelled, name))
    for flag, (precision, recall) in REACHED[name].items():
        assert found[flag].precision >= precision
        assert found[flag].recall >= recall
    assert found["last claims"].precision >= 0.98
    assert found["last claims"].recall >= 0.92
    assert found["discussed cells"].recall >= 0.97


def test_the_table_of_the_docs_is_the_one_the_command_prints(labelled, request):
    docs = (request.config.rootpath / "docs" / "behaviour.md").read_text("utf-8")
    parts = {name: part(labelled, name) for name in REACHED}
    assert markdown(parts) in docs


@pytest.fixture(scope="module")
def prose(request):
    return prose_parts(request.path.parent)


def test_own_prose_in_the_styles_of_models_is_read(prose):
    own = prose["own"]
    assert len(own) >= 10
    found, genes = check(own), check_genes(own)
    for name in ("self_reflection", "curriculum", "elimination"):
        assert (found[name].false, found[name].missed) == (0, 0)
    assert found["comparison"].precision == 1.0
    assert found["last claims"].precision >= 0.98
    assert found["last claims"].recall >= 0.98
    assert found["discussed cells"].precision >= 0.98
    for accuracy in genes.values():
        assert accuracy.precision >= 0.98
        assert accuracy.recall >= 0.98


def test_published_responses_are_read_as_a_person_reads_them(prose, shared):
    published = prose["published"]
    assert len(published) == 5
    found, genes = check(published), check_genes(published)
    assert found["self_reflection"].false == 0  # none of the five changes its mind
    assert found["curriculum"].false == 0
    assert found["elimination"].precision == found["elimination"].recall == 1.0
    assert found["comparison"].precision == 1.0
    for name in ("last claims", "discussed cells"):
        assert found[name].precision >= 0.98
        assert found[name].recall >= 0.98
    for accuracy in genes.values():
        assert accuracy.precision >= 0.98
        assert accuracy.recall >= 0.98


def test_the_table_of_prose_in_the_docs_is_true(prose, shared, request):
    docs = (request.config.rootpath / "docs" / "behaviour.md").read_text("utf-8")
    assert markdown(prose, genes=True) in docs


def test_precision_and_recall_of_known_counts():
    accuracy = Accuracy(found=6, missed=2, false=3)
    assert accuracy.precision == pytest.approx(6 / 9)
    assert accuracy.recall == pytest.approx(6 / 8)


def test_a_bad_row_of_labels_is_named(tmp_path, labelled, request):
    source = request.path.parent
    (tmp_path / "behaviour_puzzles.jsonl").write_bytes(
        (source / "behaviour_puzzles.jsonl").read_bytes()
    )
    row = json.loads((source / "behaviour_labels.jsonl").read_text("utf-8").splitlines()[0])
    path = tmp_path / "labels.jsonl"
    for broken, complaint in (
        ("{", "no JSON"),
        (json.dumps({k: v for k, v in row.items() if k != "claims"}), "lacks claims"),
        (json.dumps(row | {"puzzle": "none"}), "no puzzle 'none'"),
    ):
        path.write_text(broken + "\n")
        with pytest.raises(InputError, match=complaint):
            read_labels(path)
