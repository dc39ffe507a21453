"""Lessons in tokens: the solver's own prompt, and responses that say what is rated."""

import re
from itertools import permutations

import numpy as np
import pytest
import torch
from base_toys import MARKERS, as_puzzle

import cello1
from cello1.citations.citations import citations, gene_vocabulary
from cello1.puzzles.answer import TAGS, Answer, parse_response
from cello1.solvers.local.spelling import spelling_tree
from cello1.training.base.forward import hidden_states
from cello1.training.base.layout import decisions, response
from cello1.training.base.practice import Size
from cello1.training.base.pretrain import new_model, sees, start_from


def rated(lesson, lead=3.0):
    """Return ratings by which the right types lead."""
    rating = np.zeros((len(lesson.gold), len(lesson.labels)))
    rating[np.arange(len(lesson.gold)), lesson.gold] = lead
    return rating - np.log(np.exp(rating).sum(axis=1, keepdims=True))


def pieces(layout, text):
    return [layout.tokenizer.decode([i]) for i in layout.encode(text)]


def test_the_tokenizer_is_exact_and_a_gene_a_cell_a_type_and_a_tag_are_one_token(layout):
    text = (
        "<think>Cell 3 is B cell or T cell: MS4A1, among others.\n</think>\n<answer>B cell</answer>"
    )
    for part in (text, "unseen: β cell | 你好", "vein endothelial cell | NEVERSEEN7, "):
        assert layout.tokenizer.decode(layout.encode(part)) == part
    assert {"Cell 3", "B cell", "T cell", "MS4A1, ", *TAGS} <= set(pieces(layout, text))
    # A label inside a word is no label.
    assert "T cell" not in pieces(layout, "NKT cells")


def test_whoever_skips_special_tokens_still_reads_the_format(layout):
    text = "<think>x</think>\n<answer>B cell</answer>"
    ids = [*layout.encode(text), layout.tokenizer.eos_token_id]
    assert layout.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert not set(TAGS) & set(layout.tokenizer.all_special_tokens)


def test_a_response_is_right_and_every_gene_is_in_its_cell(practice, layout):
    rng = np.random.default_rng(0)
    for i in range(30):
        draft = practice.draw(0, i, Size(4, 50, 1))
        lesson = layout.lesson(draft, rng, cite=True)
        puzzle = as_puzzle(practice, draft)
        tokens, targets, weights, allowed, about = response(layout, lesson, rated(lesson))
        assert tokens == targets
        assert len(tokens) == len(weights) == len(allowed) == len(about)
        assert min(weights) > 0
        text = layout.tokenizer.decode(tokens).removesuffix("<|im_end|>")
        assert cello1.score(puzzle, text).exact
        said = parse_response(text)
        assert isinstance(said, Answer)
        vocabulary = gene_vocabulary([puzzle])
        assert all(c.true for c in citations(puzzle, said.reasoning, vocabulary))
        weighed, decided = said.reasoning.rstrip("\n").split("\nEach type once:\n")
        for k, (line, label) in enumerate(
            zip(weighed.split("\n"), puzzle.answer, strict=True), start=1
        ):
            assert re.match(rf"Cell {k}: {re.escape(label)} \d\d %( \| |$)", line)
        lines = decided.split("\n")
        for k, (line, label) in enumerate(zip(lines, puzzle.answer, strict=True), start=1):
            assert line.startswith((f"Cell {k} is {label}: ", f"Cell {k} is {label}."))


def test_after_a_mistake_the_rest_is_decided_anew(practice, layout):
    draft = practice.draw(0, 1, Size(4, 50, 0, plain=True))
    lesson = layout.lesson(draft, np.random.default_rng(0), cite=True)
    n = len(lesson.gold)
    said = [lesson.gold[(i + 1) % n] for i in range(n)]  # everybody says the next one's type
    tokens, targets, weights, *_ = response(layout, lesson, rated(lesson), said)
    text = layout.tokenizer.decode(tokens).removesuffix("<|im_end|>")
    answer = parse_response(text)
    assert isinstance(answer, Answer)
    assert list(answer.labels) == [draft.names[j] for j in said]
    # The first cell's type is left over until the last line gives it, so all others are to take it.
    wrong = [k for k, (a, b) in enumerate(zip(tokens, targets, strict=True)) if a != b]
    assert [targets[k] for k in wrong] == [lesson.labels[lesson.gold[0]][-1]] * (n - 1)
    assert min(weights) > 0


def test_decisions_are_the_best_that_agree_with_the_lines_before():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n, m = int(rng.integers(1, 5)), 5
        rating = rng.normal(size=(n, m))
        given = rng.permutation(m)[:n].tolist()
        for i, wanted in enumerate(decisions(rating, given)):
            best = max(
                (p for p in permutations(range(m), n) if list(p[:i]) == given[:i]),
                key=lambda p: sum(rating[k, j] for k, j in enumerate(p)),
            )
            assert wanted == best[i]


def test_ratings_of_others_are_read_and_not_learned(practice, layout):
    draft = practice.draw(0, 2, Size(4, 50, 1))
    lesson = layout.lesson(draft, np.random.default_rng(0), cite=True)
    own, other = (response(layout, lesson, rated(lesson), own=own) for own in (True, False))
    assert own.tokens == other.tokens
    start = own.tokens.index(layout.said("Each type once:\n")[0])
    assert own.weights[start:] == other.weights[start:]
    assert not any(other.weights[1:start])


def test_allowed_are_the_types_not_given_yet_and_the_genes_of_the_cell_not_cited(practice, layout):
    draft = practice.draw(0, 2, Size(4, 50, 1, plain=True))
    lesson = layout.lesson(draft, np.random.default_rng(0), cite=True)
    text = response(layout, lesson, rated(lesson))
    assert all(t in some for t, some in zip(text.targets, text.allowed, strict=True) if some)
    types = {form[-1] for form in lesson.labels}
    answered = [some for some in text.allowed if set(some) & types][-len(lesson.gold) :]
    assert [len(some) for some in answered] == [len(types) - k for k in range(len(lesson.gold))]
    genes = [some for some in text.allowed if some and not set(some) & types and len(some) > 1]
    listed = [set(map(layout.tokenizer.decode, cell)) for cell in lesson.listed]
    assert genes
    assert all(any(set(map(layout.tokenizer.decode, g)) <= c for c in listed) for g in genes)


def test_every_name_and_the_token_before_it_belong_to_their_cell(practice, layout):
    draft = practice.draw(0, 3, Size(5, 50, 1))
    lesson = layout.lesson(draft, np.random.default_rng(0), cite=True)
    text = response(layout, lesson, rated(lesson))
    start = text.tokens.index(layout.said("<answer>")[0])
    cell, bar = 1, layout.said(" |")[0]
    for token, about in list(zip(text.tokens, text.about, strict=True))[start:-2]:
        cell += token == bar
        assert about == cell


def test_known_labels_are_also_read_word_by_word(practice, layout):
    whole = layout.spell("natural killer cell", " ", True, 0)
    words = layout.spell("natural killer cell", " ", False, 0)
    assert len(whole) == 2
    assert len(words) >= 2
    assert whole != words
    assert layout.tokenizer.decode(list(words)) == " natural killer cell"


def test_the_choices_between_labels_are_probabilities():
    labels = [(1, 2), (1, 3), (1, 3, 4), (5,)]
    tree = spelling_tree(labels, end=9)
    assert tree.choices == {(): [1, 5], (1,): [2, 3], (1, 3): [4, 9]}
    rng = np.random.default_rng(0)
    logs = {}
    for start, options in tree.choices.items():
        shares = rng.random(len(options))
        logs[start] = np.log(shares / shares.sum())
    total = 0.0
    for j, tokens in enumerate(tree.labels):
        total += np.exp(sum(logs[tokens[:d]][k] for d, _, k in tree.path(j)))
    assert total == pytest.approx(1)


def test_the_lean_forward_pass_gives_the_numbers_of_transformers(practice, layout):
    model = new_model(layout.tokenizer, hidden=32, layers=3, heads=2, context=512, seed=0)
    start_from(model, layout, 0.5)
    ids = torch.tensor(
        [layout.lesson(practice.draw(0, 0, Size(3, 9, 1)), np.random.default_rng(0), False).prompt]
    )
    block = torch.zeros_like(ids)
    block[0, -6:-3], block[0, -3:] = 1, 2
    position = torch.arange(ids.shape[1])[None].clone()
    position[0, -3:] -= 3
    with torch.no_grad():
        theirs = model.model(
            input_ids=ids, attention_mask=sees(block), position_ids=position, use_cache=False,
            output_hidden_states=True,
        )  # fmt: skip
        ours = hidden_states(model, ids, sees=sees(block), position=position, early=1)
        assert torch.allclose(ours.last, theirs.last_hidden_state, atol=1e-5)
        early = model.model.norm(theirs.hidden_states[1])
        assert torch.allclose(ours.early, early, atol=1e-5)
        plain = model.model(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.allclose(hidden_states(model, ids).last, plain, atol=1e-5)
        begun = hidden_states(model, ids[:, :-5])
        before = torch.ones(1, 1, 5, ids.shape[1], dtype=torch.bool).tril(ids.shape[1] - 5)
        rest = hidden_states(
            model, ids[:, -5:], sees=before, behind=begun.kept,
            position=torch.arange(ids.shape[1])[None, -5:],
        )  # fmt: skip
        assert torch.allclose(rest.last, plain[:, -5:], atol=1e-5)


def test_before_any_training_tables_and_look_up_already_speak(practice, layout):
    """Genes stand near the types they mark."""
    model = new_model(layout.tokenizer, hidden=32, layers=2, heads=2, context=512, seed=0)
    start_from(model, layout, 0.5)
    table = model.get_input_embeddings().weight.detach()
    right = 0
    for label, markers in MARKERS.items():
        genes = table[[layout.encode(f"{g}, ")[0] for g in markers]].mean(0)
        types = table[[layout.encode(x)[0] for x in MARKERS]]
        right += list(MARKERS)[int((types @ genes).argmax())] == label
    assert right >= 4
