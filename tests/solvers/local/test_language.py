from dataclasses import replace

import pytest
import torch
from tiny import make_model, make_tokenizer, one_by_one

from cello1.errors import InputError
from cello1.puzzles.prompt import system_message, user_message
from cello1.scoring.score import score
from cello1.solvers.base import Failure
from cello1.solvers.local import language as room
from cello1.solvers.local.generate import _choose
from cello1.solvers.local.language import LanguageModel, LanguageSolver


def test_greedy_answers_are_those_of_one_at_a_time_generation(language, toys, answers):
    results = answers(LanguageSolver(language, max_new_tokens=60), toys[:24])
    for puzzle in toys[:24]:
        assert results[puzzle.id].text == one_by_one(language, puzzle, 60)


def test_rows_that_finish_early_do_not_disturb_the_others(language, toys, answers, monkeypatch):
    # Ends are frequent here, so the batch is made smaller again and again.
    monkeypatch.setattr(language, "ends", [*range(0, len(language.tokenizer), 40)])
    together = answers(LanguageSolver(language, max_new_tokens=80), toys[:30])
    assert len({r.completion_tokens for r in together.values()}) > 5
    for puzzle in toys[:30]:
        alone = answers(LanguageSolver(language, max_new_tokens=80), [puzzle])
        assert together[puzzle.id].text == alone[puzzle.id].text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_valid_makes_an_untrained_model_answer_every_puzzle(language, toys, answers, temperature):
    solver = LanguageSolver(language, valid=True, temperature=temperature, max_new_tokens=90)
    results = answers(solver, toys)
    scores = [score(p, results[p.id].text) for p in toys]
    assert all(s.format_valid and s.complete and s.uniqueness == 1.0 for s in scores)
    assert all(s.reason == "" for s in scores)


def test_samples_depend_on_seed_and_sample_not_on_the_batch(language, toys, answers):
    def texts(puzzles, **more):
        solver = LanguageSolver(language, temperature=1.0, max_new_tokens=30, **more)
        return {i: r.text for i, r in answers(solver, puzzles).items()}

    first = texts(toys[:10])
    assert texts(toys[:10][::-1]) == first
    assert texts(toys[3:4])[toys[3].id] == first[toys[3].id]
    assert texts(toys[:10], sample=1) != first
    assert texts(toys[:10], seed=1) != first


def test_sampling_follows_the_softmax():
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.3]]))
    draws = [0.0, 0.49, 0.51, 0.69, 0.71, 0.9999]
    chosen = [int(_choose(logits, 1.0, [u])) for u in draws]
    assert chosen == [0, 0, 1, 1, 2, 2]


def test_a_prompt_beyond_the_context_is_refused_by_name_and_the_others_go_on(
    language, toys, answers, monkeypatch
):
    lengths = sorted(len(language.prompt(p)[0]) for p in toys[:8])
    monkeypatch.setattr(language, "context", lengths[4])
    results = answers(LanguageSolver(language, max_new_tokens=5), toys[:8])
    failures = {i: r for i, r in results.items() if isinstance(r, Failure)}
    assert 0 < len(failures) < 8
    for i, failure in failures.items():
        assert i in failure.reason
        assert str(lengths[4]) in failure.reason


def test_out_of_memory_halves_the_batch_and_goes_on(language, toys, answers, monkeypatch):
    plain = answers(LanguageSolver(language, max_new_tokens=10), toys[:9])
    real, sizes = room.generate, []

    def short_of_memory(model, prompts, *rest, **more):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(model, prompts, *rest, **more)

    monkeypatch.setattr(room, "generate", short_of_memory)
    halved = answers(LanguageSolver(language, max_new_tokens=10), toys[:9])
    assert {i: r.text for i, r in halved.items()} == {i: r.text for i, r in plain.items()}
    assert sizes[:3] == [9, 4, 2]

    monkeypatch.setattr(room, "generate", lambda *a, **k: (_ for _ in ()).throw(MemoryError()))
    assert all(
        isinstance(r, Failure)
        for r in answers(LanguageSolver(language, max_new_tokens=10), toys[:3]).values()
    )


def test_batches_fit_the_memory_even_at_full_length(language, toys, answers, monkeypatch):
    solver = LanguageSolver(language, max_new_tokens=100)
    per_token = room.bytes_per_token(language.model)
    assert per_token == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, float32
    longest = max(len(language.prompt(p)[0]) for p in toys) + 100
    monkeypatch.setattr(language, "cache_bytes", lambda: 3 * longest * per_token)
    jobs = [(language.prompt(p)[0], None, p) for p in toys]
    sizes = [len(batch) for batch in solver._batches(jobs)]
    assert sum(sizes) == 60
    assert max(sizes) in (3, 4)


def test_the_rows_own_system_message_is_used(language, toys):
    own = replace(toys[0], meta={"system_msg": "Do as I say."})
    text = language.tokenizer.decode(language.prompt(own)[0])
    assert "Do as I say." in text
    assert system_message(toys[0]) not in text
    assert user_message(own) in text


def test_a_template_without_system_role_gets_it_in_front_of_the_question(toys, tmp_path):
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ messages[0]['content'] }}"
    )
    tokenizer = make_tokenizer([user_message(p) for p in toys], template=template)
    language = LanguageModel(make_model(tmp_path / "m", tokenizer))
    text = language.tokenizer.decode(language.prompt(toys[0])[0])
    assert text == f"{system_message(toys[0])}\n\n{user_message(toys[0])}"


def test_a_template_that_opens_the_thinking_is_completed(toys, tmp_path, answers):
    template = "{{ messages[1]['content'] }}{% if add_generation_prompt %}<think>\n{% endif %}"
    tokenizer = make_tokenizer([user_message(p) for p in toys], template=template)
    language = LanguageModel(make_model(tmp_path / "m", tokenizer))
    results = answers(LanguageSolver(language, valid=True, max_new_tokens=80), toys[:5])
    assert all(score(p, results[p.id].text).format_valid for p in toys[:5])
    free = answers(LanguageSolver(language, max_new_tokens=10), toys[:5])
    assert all(r.text.startswith("<think>") for r in free.values())


def test_what_cannot_be_loaded_says_what_was_expected(tmp_path, toys):
    with pytest.raises(InputError, match="expected a folder with config"):
        LanguageModel(tmp_path / "nothing")
    tokenizer = make_tokenizer([user_message(p) for p in toys], template=None)
    with pytest.raises(InputError, match="no chat template"):
        LanguageModel(make_model(tmp_path / "m", tokenizer))
