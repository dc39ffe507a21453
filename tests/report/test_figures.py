from xml.etree import ElementTree

import pytest
from report_toys import EVIL

from cello1.pages.style import figure_file, inline_svg
from cello1.report.confusion import confusion, given_labels, ontology_order, type_accuracy
from cello1.report.dynamics import Curve, TrainingLog
from cello1.report.figures import by_size, confusion_plot, dynamics_plots, reliability_plot
from cello1.report.gather import gather


@pytest.fixture(scope="module")
def solved(toy_runs):
    return gather(toy_runs).solved


def test_a_figure_in_a_page_takes_its_colours_from_it(solved):
    svg = inline_svg(by_size(solved, "batch_accuracy"))
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "var(--run-0)" in svg
    assert "#2f6db3" not in svg


def test_names_are_text_in_figures(solved):
    log = TrainingLog(
        f"{EVIL} $x$ & co", "rl", {"reward": Curve((1.0, 2.0), (0.1, 0.2), (0.1, 0.2))}
    )
    (plot,) = dynamics_plots([log])
    svg = figure_file(plot, "svg").decode()
    words = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    assert any("<script>window.broken = true</script> $x$ & co" in word for word in words)
    assert figure_file(plot, "png").startswith(b"\x89PNG")
    assert "from 0.1 at step 1 to 0.2 at step 2" in plot.alt


def test_what_is_not_there_is_not_drawn(solved):
    assert reliability_plot(solved).names == {0: "knows"}
    assert reliability_plot(solved[1:]) is None
    assert confusion_plot(solved[0], ["B cell", EVIL]).key == "confusion-knows"


def test_neighbours_in_the_ontology_stand_together():
    order = ontology_order(["T cell", "erythrocyte", "zzz", "B cell", "classical monocyte", "aaa"])
    assert order[-2:] == ["aaa", "zzz"]
    assert abs(order.index("T cell") - order.index("B cell")) == 1


def test_confusion_counts_every_cell_once(solved):
    order = ontology_order(label for p in solved[0].puzzles for label in p.candidates)
    for run in solved:
        found = confusion(run, order)
        assert found.counts.sum() == sum(len(s.puzzle.cells) for s in run.scored)
    stumbles = confusion(solved[1], order)
    unread = [s for s in solved[1].scored if not s.score.format_valid]
    assert stumbles.counts[:, -1].sum() == sum(len(s.puzzle.cells) for s in unread)
    assert len(confusion(solved[0], order, most=2).types) == 2


def test_accuracy_by_type_is_the_share_of_right_cells(solved):
    cells = [
        right
        for s in solved[0].scored
        for true, right in zip(s.puzzle.answer, s.score.right, strict=True)
        if true == "B cell"
    ]
    found = type_accuracy(solved[0], "B cell")
    assert (found.n, found.estimate) == (len(cells), pytest.approx(sum(cells) / len(cells)))
    assert type_accuracy(solved[0], "no such type") is None


def test_labels_are_read_as_they_were_given(solved):
    puzzle = solved[0].puzzles[0]
    said = [puzzle.candidates[0].upper()] * (len(puzzle.cells) - 1) + ["something else"]
    text = f"<think></think>\n<answer>{' | '.join(said)}</answer>"
    assert given_labels(puzzle, text) == [*[puzzle.candidates[0]] * (len(said) - 1), None]
    assert given_labels(puzzle, "nothing") == [None] * len(said)
