from __future__ import annotations

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from puzzle_strategies import puzzles

from cello1.errors import InputError
from cello1.puzzles.prompt import gold_message, response_text, user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import (
    Stored,
    TableWriter,
    from_dataset,
    puzzle_from_row,
    read_puzzles,
    row_from_puzzle,
    to_dataset,
    write_puzzles,
)

CELLS = [["CD3D", "HLA-DRB1"], ["MS4A1"]]
TYPES = ["T cell", 'naïve "β" cell']
PLAIN = Puzzle("Blood. ", CELLS, TYPES, TYPES[::-1])
PUZZLES = [
    PLAIN,
    Puzzle("", CELLS, [*TYPES, "mast cell"], meta={"donor_id": "d1", "tissue": "lung"}),
    Puzzle("Liver.", CELLS, TYPES, TYPES, meta={"system_msg": "Be brief.", "cell_ids": ["a", "b"]}),
]
FILES = ["p.parquet", "p.json", "p.jsonl", "p.ndjson"]
QUESTION = user_message(PLAIN)


def row(**columns):
    return {"user_msg": QUESTION} | columns


def same(found, expected):
    assert found == expected
    assert [p.id for p in found] == [p.id for p in expected]


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_back_equal_puzzles(tmp_path, name):
    write_puzzles(PUZZLES, tmp_path / name)
    same(read_puzzles(tmp_path / name), PUZZLES)


def test_a_dataset_gives_back_equal_puzzles_in_memory_and_from_disk(tmp_path):
    dataset = to_dataset(PUZZLES)
    same(from_dataset(dataset), PUZZLES)
    dataset.save_to_disk(str(tmp_path / "saved"))
    same(read_puzzles(tmp_path / "saved"), PUZZLES)


@given(st.lists(puzzles(), max_size=3), st.sampled_from(FILES))
@settings(max_examples=40)
def test_any_valid_puzzle_survives_any_file(tmp_path_factory, some, name):
    path = tmp_path_factory.getbasetemp() / name
    write_puzzles(some, path)
    same(read_puzzles(path), some)


@pytest.mark.parametrize("name", FILES)
def test_writing_twice_gives_the_same_bytes(tmp_path, name):
    first, second = tmp_path / f"1{name}", tmp_path / f"2{name}"
    write_puzzles(PUZZLES, first)
    write_puzzles(read_puzzles(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_equal_puzzles_give_equal_rows_whatever_the_order_of_their_metadata():
    first = Puzzle("", CELLS, TYPES, meta={"tissue": "lung", "batch": "é"})
    second = Puzzle("", CELLS, TYPES, meta={"batch": "é", "tissue": "lung"})
    assert row_from_puzzle(first) == row_from_puzzle(second)


def test_the_columns_of_cellpuzzles_come_first(tmp_path):
    write_puzzles(PUZZLES, tmp_path / "p.parquet")
    names = pq.read_schema(tmp_path / "p.parquet").names
    assert names[:3] == ["system_msg", "user_msg", "assistant_msg"]
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["assistant_msg"] == ['naïve "β" cell | T cell', None, 'T cell | naïve "β" cell']
    assert table["donor_id"] == [None, "d1", None]


@pytest.mark.parametrize("name", FILES)
def test_metadata_of_any_json_type_can_be_stored(tmp_path, name):
    numeric = Puzzle("", CELLS, TYPES, meta={"donor_id": 101, "depth": 1.5, "pooled": True})
    write_puzzles([numeric], tmp_path / name)
    same(read_puzzles(tmp_path / name), [numeric])


def test_the_published_example_is_written_back_byte_for_byte(shared):
    path = shared / "cellpuzzles_example.json"
    (puzzle,) = read_puzzles(path)
    written = row_from_puzzle(puzzle)
    columns = {name: written[name] for name in ("system_msg", "user_msg", "assistant_msg")}
    assert json.dumps(columns, indent=1).encode() == path.read_bytes()


def test_the_published_rows_are_written_back_byte_for_byte(shared):
    path = shared / "data" / "cellpuzzles_rows.jsonl"
    found = read_puzzles(path)
    assert [len(puzzle.cells) for puzzle in found] == [9, 10, 10]
    lines = [
        {"id": p.meta["row_id"], "user_msg": user_message(p), "answer": gold_message(p.answer)}
        for p in found
    ]
    assert "".join(json.dumps(line) + "\n" for line in lines).encode() == path.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        gold_message(TYPES),
        'T cell|naïve "β" cell',
        ' t cell | NAÏVE "β" cell\n',
        response_text("First,\n\n CD3D | HLA.", tuple(TYPES)),
        response_text("", tuple(TYPES)) + "\n",
    ],
)
def test_the_assistant_message_keeps_its_text_byte_for_byte(tmp_path, text):
    puzzle = puzzle_from_row(row(assistant_msg=text))
    assert [label.lower() for label in puzzle.answer] == [label.lower() for label in TYPES]
    write_puzzles([puzzle], tmp_path / "p.parquet")
    (again,) = read_puzzles(tmp_path / "p.parquet")
    assert again == puzzle
    assert row_from_puzzle(again)["assistant_msg"] == text


@pytest.mark.parametrize(
    "text", ["", None, gold_message(TYPES), response_text("CD3D", tuple(TYPES))]
)
def test_a_stored_row_moves_its_answer_with_its_cells(text):
    moved = puzzle_from_row(row(assistant_msg=text)).permute_cells([1, 0])
    assert puzzle_from_row(row_from_puzzle(moved)).answer == moved.answer


def parquet(rows: list[dict[str, object]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.parquet", b"", "cannot be read"),
        ("p.parquet", parquet([row()])[:-9], "cannot be read"),
        ("p.parquet", parquet([row(), row(user_msg=None)]), "row 2: no text in column user_msg"),
        ("p.parquet", parquet([{"text": "hi"}]), "row 1: .* the columns are text"),
        ("p.json", b"[{", "cannot be read"),
        ("p.json", b'{"user_msg": "\xff"}', "cannot be read"),
        ("p.json", b"[1]", "row 1 is 1"),
        ("p.json", b"7", "row 1 is 7"),
        ("p.jsonl", lines(row(), row(user_msg="Hello")), "row 2: .*'Hello'"),
        ("p.jsonl", lines(row(), row(answer="T cell | mast cell")), "row 2: .*'mast cell'"),
        ("p.jsonl", lines(row(), row(assistant_msg=5)), "row 2"),
        ("p.jsonl", lines(row(), row(answer=TYPES)), "row 2"),
        ("p.jsonl", lines(row(), row(meta="{")), "row 2"),
        ("p.jsonl", lines(row(), row(meta="[1]")), "row 2"),
        ("p.jsonl", lines(row(), row(meta=5)), "row 2"),
        ("p.jsonl", lines(row()) + b'{"user_msg": "Cont', "row 2"),
        ("p.csv", b"user_msg\n", "expected one of .parquet"),
    ],
)
def test_a_damaged_file_gives_one_error_that_names_the_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as refused:
        read_puzzles(tmp_path / name)
    assert name in str(refused.value)


def test_a_missing_file_and_a_foreign_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet does not exist"):
        read_puzzles(tmp_path / "none.parquet")
    write_puzzles(PUZZLES, tmp_path / "test.parquet")
    assert read_puzzles(tmp_path) == PUZZLES
    write_puzzles(PUZZLES, tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"has the splits train, test; name one"):
        read_puzzles(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no puzzles \(in it: nothing\)"):
        read_puzzles(tmp_path / "empty")


def test_a_refused_write_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot write p\.csv"):
        write_puzzles(PUZZLES, tmp_path / "p.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b""])
def test_a_table_that_does_not_read_back_is_refused(tmp_path, monkeypatch, damage):
    def write(path, content):
        path.write_bytes(damage(content))

    monkeypatch.setattr("cello1.puzzles.table.write_atomic", write)
    with pytest.raises(InputError, match=r"p\.parquet does not read back as it was written"):
        write_puzzles(PUZZLES, tmp_path / "p.parquet")


def test_a_flipped_bit_in_parquet_is_never_read_as_another_puzzle(tmp_path):
    """Pages are covered by a checksum, and the names of the columns are known."""
    write_puzzles(PUZZLES * 20, tmp_path / "p.parquet")
    content = (tmp_path / "p.parquet").read_bytes()
    rng = random.Random(0)
    told = 0
    for _ in range(300):
        place, bit = rng.randrange(4, len(content) - 8), 1 << rng.randrange(8)
        spoiled = bytearray(content)
        spoiled[place] ^= bit
        (tmp_path / "spoiled.parquet").write_bytes(spoiled)
        try:
            assert read_puzzles(tmp_path / "spoiled.parquet") == PUZZLES * 20
        except InputError:
            told += 1
    assert told > 100


# --- more than memory holds -----------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 6, 7, 20])
def test_rows_that_come_in_pieces_give_the_same_bytes(tmp_path, monkeypatch, count):
    monkeypatch.setattr("cello1.puzzles.table.ROWS", 7)
    puzzles = [
        Puzzle(f"Donor {i}.", CELLS, TYPES, TYPES, {"donor_id": f"d{i}"}) for i in range(count)
    ]
    write_puzzles(puzzles, tmp_path / "whole.parquet")
    whole = pq.read_table(tmp_path / "whole.parquet")
    for step in (1, 3, 7, 9):
        with TableWriter(tmp_path / "pieces.parquet") as writer:
            for start in range(0, count, step):
                writer.write(whole[start : start + step])
        assert (tmp_path / "pieces.parquet").read_bytes() == (
            tmp_path / "whole.parquet"
        ).read_bytes()


def test_stored_puzzles_are_those_that_were_written_as_often_as_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr("cello1.puzzles.table.ROWS", 7)
    puzzles = [Puzzle(f"Donor {i}.", CELLS, TYPES) for i in range(20)]
    for name, pieces in (("p.parquet", 3), ("p.jsonl", 1), ("p.json", 1)):
        write_puzzles(puzzles, tmp_path / name)
        stored = Stored(tmp_path / name)
        assert list(stored) == list(stored) == puzzles
        assert len(stored.pieces()) == pieces
        assert [p for piece in stored.pieces() for p in piece] == puzzles


def test_a_bad_row_of_a_later_row_group_is_named_by_its_number_in_the_file(tmp_path):
    write_puzzles([Puzzle(f"Donor {i}.", CELLS, TYPES) for i in range(20)], tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    asked = table["user_msg"].to_pylist()
    asked[16] = "no puzzle"
    table = table.set_column(1, "user_msg", [asked])
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=7)
    for source in (Stored(tmp_path / "p.parquet"), Stored(tmp_path / "p.parquet").pieces()[2]):
        with pytest.raises(InputError, match=r"p\.parquet, row 17: "):
            list(source)
