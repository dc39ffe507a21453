"""Planted leaks are found, clean data pass, and what the data cannot tell is said."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import pyarrow.parquet as pq
import pytest

from cello1.cells.audit import audit
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import Stored, read_puzzles, write_puzzles


@pytest.fixture
def clean(make_puzzle) -> dict[str, list[Puzzle]]:
    return {
        name: [make_puzzle(f"{name}{i}", n=3 + i) for i in range(3)]
        for name in ("train", "validation", "test")
    }


def with_meta(puzzle: Puzzle, **meta) -> Puzzle:
    return replace(puzzle, meta={**puzzle.meta, **meta})


def test_clean_data_pass(clean):
    found = audit(clean)
    assert found.passed
    assert (found.leaks, found.duplicates, found.unanswered) == (0, 0, 0)
    assert found.gold_failures == found.marks == []
    assert found.sizes == {"train": 3, "validation": 3, "test": 3}
    assert found.n_histogram == {3: 3, 4: 3, 5: 3}
    assert len(found.shared) == 3
    assert not any(shared.leaks or shared.tainted for shared in found.shared)


def test_type_counts_are_cells_most_frequent_first(clean):
    counts = audit(clean).type_counts
    assert list(counts.values()) == [9, 9, 9, 6, 3]
    assert counts["B cell"] == 9


def test_the_findings_are_json(clean):
    text = json.loads(json.dumps(audit(clean).to_json()))
    assert text["passed"] is True
    assert text["leaks"] == 0


def pair(found, first="train", second="test"):
    return next(s for s in found.shared if (s.first, s.second) == (first, second))


def test_a_shared_donor_is_a_leak(clean):
    clean["test"][0] = with_meta(clean["test"][0], donor_id="train0")
    found = audit(clean)
    assert (found.leaks, found.passed) == (1, False)
    shared = pair(found)
    assert (shared.donors, shared.cells, shared.gene_lists, shared.tainted) == (1, 0, 0, 0)
    assert shared.example == "train0"


def test_a_shared_cell_id_is_a_leak(clean):
    ids = [clean["train"][1].meta["cell_ids"][2], *clean["test"][1].meta["cell_ids"][1:]]
    clean["test"][1] = with_meta(clean["test"][1], cell_ids=ids)
    found = audit(clean)
    assert (found.leaks, found.passed) == (1, False)
    assert (pair(found).donors, pair(found).cells, pair(found).gene_lists) == (0, 1, 0)


def test_one_barcode_in_two_data_sets_is_two_cells(clean):
    ids = clean["train"][1].meta["cell_ids"]
    clean["test"][1] = with_meta(clean["test"][1], cell_ids=ids, dataset="other")
    assert audit(clean).passed


def test_an_identical_gene_list_under_another_donor_is_a_leak(clean, make_puzzle):
    """As when one study stands in two files with its donors renamed."""
    cells = (*clean["train"][2].cells[:2], ("ONLY", "HERE"))
    twin = replace(make_puzzle("renamed", dataset="other"), cells=cells)
    clean["test"] += [twin, with_meta(twin, donor_id="renamed too", cell_ids=["x", "y", "z"])]
    found = audit(clean)
    assert (found.leaks, found.passed) == (1, False)
    shared = pair(found)
    assert (shared.donors, shared.cells, shared.gene_lists, shared.tainted) == (0, 0, 2, 2)
    assert shared.example.startswith("genes G")


def test_the_same_genes_in_another_order_are_another_list(clean, make_puzzle):
    cells = tuple(genes[::-1] for genes in clean["train"][0].cells)
    clean["test"].append(replace(make_puzzle("new"), cells=cells))
    assert audit(clean).passed


@pytest.mark.parametrize("place", ["train", "validation", "test"])
def test_leaks_are_found_between_any_two_splits(clean, place):
    for name in clean:
        if name != place:
            clean[name].append(with_meta(clean[place][0], donor_id=f"new {name}"))
    # The three splits now share one puzzle's cells pairwise.
    assert audit(clean).leaks == 3


def test_duplicates_are_counted_whatever_the_order_of_their_cells(clean):
    first = clean["train"][2]
    clean["train"] += [first.permute_cells([4, 3, 2, 1, 0]), first]
    found = audit(clean)
    assert found.duplicates == 2
    assert found.leaks == 0


def test_a_gold_answer_that_does_not_score_one_fails_the_audit(clean):
    """No puzzle can be made so; here its answer is exchanged behind its back."""
    broken = clean["test"][0]
    assert broken.answer_keys is not None
    object.__setattr__(broken, "answer", broken.answer[::-1])
    found = audit(clean)
    assert found.gold_failures == [broken.id]
    assert (found.leaks, found.passed) == (0, False)


def test_puzzles_without_an_answer_are_counted(clean):
    clean["test"][0] = replace(clean["test"][0], answer=None)
    assert audit(clean).unanswered == 1


@pytest.mark.parametrize("mark", ["pooled", "one_donor", "synthetic"])
def test_what_a_reader_must_know_is_marked(clean, mark):
    clean["train"][0] = with_meta(clean["train"][0], **{mark: True})
    (text,) = audit(clean).marks
    assert text.startswith("1 puzzles ")


def test_a_split_by_cell_may_share_donors_but_no_cells(clean):
    splits = {
        name: [with_meta(p, donor_id="one", split="cell") for p in puzzles]
        for name, puzzles in clean.items()
    }
    assert audit(splits).passed
    splits["test"].append(splits["train"][0])
    assert audit(splits).leaks == 1


def test_one_split_has_nothing_to_leak_to(clean):
    found = audit({"all": clean["train"]})
    assert found.passed
    assert found.shared == []


def test_empty_splits_are_no_failure(clean):
    found = audit({"train": clean["train"], "validation": [], "test": []})
    assert found.passed
    assert found.sizes["test"] == 0


def test_published_rows_tell_of_leaks_by_their_gene_lists_only(shared):
    first, second, third = read_puzzles(shared / "data" / "cellpuzzles_rows.jsonl")
    honest = audit({"train": [first, second], "test": [third]})
    assert honest.passed
    assert (pair(honest).donors, pair(honest).cells) == (None, None)
    assert any("only gene lists can tell" in mark for mark in honest.marks)
    stolen = replace(third, cells=(first.cells[0], *third.cells[1:]))
    leaking = audit({"train": [first, second], "test": [stolen]})
    assert (pair(leaking).gene_lists, pair(leaking).tainted) == (1, 1)
    assert not leaking.passed


def test_one_row_without_metadata_does_not_hide_the_leaks_of_the_others(clean):
    clean["test"][0] = with_meta(clean["test"][0], donor_id="train0")
    clean["test"][1] = replace(clean["test"][1], meta={})
    assert not audit(clean).passed


# --- in files that are larger than memory ---------------------------------------------------


def by_sets(splits):
    """The same figures from sets of everything, as long as it fits into memory."""
    pairs = []
    for a, b in combinations(splits, 2):
        donors = [{p.meta["donor_id"] for p in splits[name]} for name in (a, b)]
        cells = [
            {(p.meta["dataset"], c) for p in splits[name] for c in p.meta.get("cell_ids", ())}
            for name in (a, b)
        ]
        lists = [{genes for p in splits[name] for genes in p.cells} for name in (a, b)]
        common = lists[0] & lists[1]
        tainted = sum(not common.isdisjoint(p.cells) for p in splits[b])
        example = [*sorted(donors[0] & donors[1])[:1]]
        example += ["/".join(cell) for cell in sorted(cells[0] & cells[1])[:1]]
        example += [f"genes {', '.join(genes[:4])}, ..." for genes in sorted(common)[:1]]
        pairs.append(
            (len(donors[0] & donors[1]), len(cells[0] & cells[1]), len(common), tainted,
             example[0] if example else "")
        )  # fmt: skip
    every = [p for members in splits.values() for p in members]
    return pairs, len(every) - len({tuple(sorted(p.cells)) for p in every})


@pytest.mark.parametrize("leak", ["none", "lists", "cells", "donors", "repeats"])
def test_stored_puzzles_are_found_to_be_what_sets_of_them_say(make_puzzle, tmp_path, leak):
    splits = {
        name: [
            with_meta(
                replace(p, cells=tuple((f"G{name}{i}.{j}", *c) for j, c in enumerate(p.cells))),
                cell_ids=[f"{name}{i}.{j}" for j in range(3)],
            )
            for i, p in enumerate(make_puzzle(f"{name}{i // 5}") for i in range(40))
        ]
        for name in ("train", "validation", "test")
    }
    first, test = splits["train"], splits["test"]
    for i in range(0, 40, 3):
        if leak == "lists":
            cells = (first[i].cells[1], *test[i].cells[1:])
            test[i] = replace(test[i], cells=cells)
        elif leak == "cells":
            test[i] = with_meta(test[i], cell_ids=first[i].meta["cell_ids"])
        elif leak == "donors":
            test[i] = with_meta(test[i], donor_id=first[i].meta["donor_id"])
        elif leak == "repeats":
            first[i] = first[0].permute_cells([2, 0, 1])
    for name, puzzles in splits.items():
        write_puzzles(puzzles, tmp_path / "whole.parquet")
        table = pq.read_table(tmp_path / "whole.parquet")
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=9)
    stored = {name: Stored(tmp_path / f"{name}.parquet") for name in splits}
    shares = []
    found = audit(stored, watch=shares.append)
    assert shares == [i / 15 for i in range(1, 16)]
    assert found == audit(splits)
    pairs, repeats = by_sets(splits)
    assert repeats == found.duplicates
    assert pairs == [(s.donors, s.cells, s.gene_lists, s.tainted, s.example) for s in found.shared]
    assert (found.leaks > 0) == (leak in ("lists", "cells", "donors"))
    if leak == "lists":
        assert audit(stored, workers=2) == found


def test_several_processes_name_the_row_that_cannot_be_read(make_puzzle, tmp_path):
    path = tmp_path / "all.parquet"
    write_puzzles([make_puzzle(f"d{i}") for i in range(40)], path)
    table = pq.read_table(path)
    asked = table["user_msg"].to_pylist()
    asked[31] = "no puzzle"
    pq.write_table(table.set_column(1, "user_msg", [asked]), path, row_group_size=5)
    with pytest.raises(InputError, match=r"all\.parquet, row 32: "):
        audit({"all": Stored(path)}, workers=2)
