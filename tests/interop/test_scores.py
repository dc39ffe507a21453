"""The figures of a harness are those of `cello1 eval`, to the last digit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cello1.errors import InputError
from cello1.interop.figures import METRICS, answered, figures
from cello1.interop.lm_eval import export_lm_eval, process_opened_results, process_results
from cello1.interop.openai_batch import BatchFile, export_openai_batch
from cello1.interop.trl import batch, cell_batch, trl_row
from cello1.puzzles.table import row_from_puzzle
from cello1.scoring.reward import REWARDS
from cello1.scoring.score import score
from cello1.solvers.run import read_solved, solve


def test_means_over_rows_are_the_metrics(toys, responses, evaluated):
    rows = [figures(row_from_puzzle(puzzle), responses[puzzle.id]) for puzzle in toys]
    for name in METRICS:
        assert np.mean([row[name] for row in rows]) == getattr(evaluated.overall, name).estimate


def test_a_row_that_went_through_json_scores_the_same(toys, responses):
    for puzzle in toys:
        row = json.loads(json.dumps(row_from_puzzle(puzzle)))
        assert process_results(row, [responses[puzzle.id]]) == figures(row, responses[puzzle.id])


def test_a_text_that_begins_behind_the_think_tag_is_told_to_the_harness(toys, responses, tmp_path):
    for puzzle in toys:
        row, text = row_from_puzzle(puzzle), responses[puzzle.id]
        assert process_opened_results(row, [text.removeprefix("<think>")]) == figures(
            row, f"<think>{text.removeprefix('<think>')}"
        )
        assert process_opened_results(row, [text]) == figures(row, text) or "<think>" not in text
    export_lm_eval(toys, tmp_path / "task", opened=True)
    namespace = {}
    exec((tmp_path / "task" / "utils.py").read_text(), namespace)
    assert namespace["process_results"] is process_opened_results


def test_puzzles_without_answers_are_refused(toys):
    with pytest.raises(InputError, match="1 of 2 puzzles have no answer"):
        answered([toys[0], replace(toys[1], answer=None)], "test")
    with pytest.raises(InputError, match="no puzzle"):
        answered([], "test")


def test_rewards_are_ours(toys, responses):
    rows = [trl_row(puzzle) for puzzle in toys]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    texts = [responses[puzzle.id] for puzzle in toys]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    for function, name in ((batch, "batch"), (cell_batch, "cell+batch")):
        want = [REWARDS[name](score(p, text)) for p, text in zip(toys, texts, strict=True)]
        assert function(chats, prompts=[r["prompt"] for r in rows], **columns) == want
        assert function(texts, **columns) == want
        assert len(set(want)) > 2


def test_the_folder_of_lm_eval_is_not_written_over_another(toys, tmp_path):
    made = export_lm_eval(toys, tmp_path / "task")
    assert [path.name for path in made] == ["cellpuzzles.yaml", "utils.py", "test.jsonl"]
    before = [path.read_bytes() for path in made]
    export_lm_eval(toys, tmp_path / "task")
    assert [path.read_bytes() for path in made] == before
    (tmp_path / "task" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        export_lm_eval(toys, tmp_path / "task")


def answer_line(puzzle, text, **more):
    message = {"role": "assistant", "content": text}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": None}
    response = {"status_code": 200, "body": body}
    return json.dumps({"custom_id": puzzle.id, "response": response, "error": None} | more)


def test_batch_files_go_out_and_come_back(toys, responses, evaluated, tmp_path):
    pytest.importorskip("openai", reason="needs openai: pip install 'cello1[api]'")
    from cello1.puzzles.table import write_puzzles
    from cello1.scoring.evaluate import evaluate

    asked = tmp_path / "requests.jsonl"
    assert export_openai_batch(toys, asked, model="m") == len(toys)
    requests = [json.loads(line) for line in asked.read_text().splitlines()]
    assert [r["custom_id"] for r in requests] == [p.id for p in toys]
    assert requests[0]["url"] == "/v1/chat/completions"
    assert [m["role"] for m in requests[0]["body"]["messages"]] == ["system", "user"]

    spoken = [p for p in toys if responses[p.id]]
    lines = [answer_line(p, responses[p.id]) for p in spoken]
    silent = [p for p in toys if not responses[p.id]]
    failed = {"response": {"status_code": 500, "body": {"error": {"message": "overloaded"}}}}
    lines += [answer_line(p, "", **failed) for p in silent[1:]]  # the first is not there at all
    came = tmp_path / "out.jsonl"
    came.write_text("\ufeff" + "\n".join(reversed(lines)) + "\n", "utf-8")
    write_puzzles(toys, tmp_path / "puzzles.parquet")
    solve(tmp_path / "puzzles.parquet", BatchFile(came), tmp_path / "run")
    puzzles, records = read_solved(tmp_path / "run")
    texts = {key: record["text"] for key, record in records.items()}
    assert texts == {p.id: responses[p.id] for p in spoken}
    assert evaluate(puzzles, texts).overall.batch_accuracy.estimate > 0
    # What the file lacks is owed, and a fuller file brings it.
    fuller = tmp_path / "fuller.jsonl"
    fuller.write_text("\n".join(answer_line(p, responses[p.id] or "late") for p in toys))
    assert {type(r).__name__ for r in BatchFile(fuller).records.values()} == {"Response"}


@pytest.mark.parametrize("line", ["no json", "[1]", '{"id": 1}', "[" * 5_000, '"text"'])
def test_a_line_that_is_no_record_is_named(line, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1 is"):
        BatchFile(path)


def test_a_batch_file_needs_each_puzzle_once(toys, tmp_path):
    with pytest.raises(InputError, match="stands there twice"):
        export_openai_batch([toys[0], toys[0]], tmp_path / "r.jsonl", model="m")
