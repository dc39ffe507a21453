import numpy as np
import pytest
import torch
from tiny import make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cello1.errors import InputError
from cello1.puzzles.answer import TAGS, Answer, parse_response
from cello1.solvers.local.vocabulary import Vocabulary
from cello1.solvers.local.writers import FreeWriter, GuidedWriter

NASTY = [
    "T cell",
    "T cell, CD4-positive",
    "T cells",
    "CD4+ T",
    "β-cell naïve",
    "a",
    "a b",
    "monocyte",
    "<b> cell",
    "5' flank",
]


def sentencepiece_like(texts):
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(params=["byte level", "tags are tokens", "sentencepiece"])
def vocabulary(request):
    texts = [
        " | ".join(NASTY),
        "<think>Cell 1 is a T cell</think>\n<answer>T cell | a</answer>",
    ] * 5
    if request.param == "sentencepiece":
        return Vocabulary(sentencepiece_like(texts))
    tags = TAGS if request.param == "tags are tokens" else ()
    return Vocabulary(make_tokenizer(texts, vocab=400, tags=tags))


def random_model_writes(writer, vocabulary, rng, ends=()):
    """Write as the decoding loop does, with a model that says anything."""
    size = len(vocabulary.tokenizer)
    for _ in range(5_000):
        if writer.done:
            return
        if (token := writer.forced()) is None:
            among = writer.allowed()
            token = int(rng.choice(among)) if among else int(rng.integers(size))
            if not among and rng.random() < 0.05:
                token = int(rng.choice([*vocabulary.closing, *ends]))
        writer.write(token, -1.0)
    raise AssertionError("the writer never ends")


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_model_says_the_answer_is_valid_and_unique(vocabulary, seed):
    rng = np.random.default_rng(seed)
    ends = [vocabulary.tokenizer.eos_token_id]
    candidates = [str(c) for c in rng.permutation(NASTY)]
    n = int(rng.integers(2, len(NASTY) + 1))
    budget = int(rng.integers(1, 400))
    writer = GuidedWriter(vocabulary, budget, ends, candidates, n, opened=bool(seed % 2))
    random_model_writes(writer, vocabulary, rng, ends)
    answer = parse_response(writer.text())
    assert isinstance(answer, Answer), writer.text()
    assert len(set(answer.labels)) == n
    assert set(answer.labels) <= set(candidates)


def test_the_tokens_written_spell_the_answer(vocabulary):
    rng = np.random.default_rng(0)
    writer = GuidedWriter(vocabulary, 200, [], NASTY, 5)
    random_model_writes(writer, vocabulary, rng)
    spelled = vocabulary.text(writer.tokens)
    assert spelled.endswith(f"<answer>{' | '.join(writer.labels)}</answer>")


def test_every_label_can_be_chosen_in_every_place(vocabulary):
    seen = set()
    for seed in range(300):
        writer = GuidedWriter(vocabulary, 1, [], NASTY[:4], 2)
        random_model_writes(writer, vocabulary, np.random.default_rng(seed))
        seen.add(tuple(writer.labels))
    assert len(seen) == 12


@pytest.mark.parametrize("closing", ["</think>", "</think>\n\n", "so<answer>", "x</think>y"])
def test_thinking_ends_where_the_model_ends_it(vocabulary, closing):
    writer = GuidedWriter(vocabulary, 500, [], NASTY, 2)
    for token in [*vocabulary.encode("<think>")]:
        writer.write(token, None)
    for token in vocabulary.encode("It is clear" + closing):
        if writer.forced() is not None:
            break
        writer.write(token, -1.0)
    assert writer.forced() is not None
    random_model_writes(writer, vocabulary, np.random.default_rng(0))
    reasoning = parse_response(writer.text()).reasoning
    assert reasoning.startswith("It is clear")
    assert "think" not in reasoning
    assert "answer" not in reasoning


def test_tags_in_the_reasoning_are_dropped_however_nested(vocabulary):
    writer = GuidedWriter(vocabulary, 500, [], NASTY, 2)
    writer.thought = "a <th<think>ink> b </ans</answer>wer>"
    writer.labels = ["a", "a b"]
    assert isinstance(parse_response(writer.text()), Answer)


def test_the_budget_holds_thinking_and_answer(vocabulary):
    for budget in (150, 300):
        writer = GuidedWriter(vocabulary, budget, [], NASTY, 3)
        rng = np.random.default_rng(1)
        plain = [t for t in range(len(vocabulary.tokenizer)) if t not in vocabulary.closing]
        while not writer.done:
            token = writer.forced()
            if token is None:
                token = int(rng.choice(writer.allowed() or plain))
            writer.write(token, -1.0)
        assert writer.thinking > 0
        assert len(writer.tokens) <= budget + 40  # single bytes can spell a label at length


def test_a_label_that_cannot_be_spelled_is_refused_before_anything_starts():
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "B": 1, "cell": 2}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    with pytest.raises(InputError, match=r"cannot spell .*hepatocyte"):
        GuidedWriter(Vocabulary(tokenizer), 10, [], ["hepatocyte", "B cell"], 2)


def test_free_writing_stops_at_the_answer_at_an_end_or_at_the_budget(vocabulary):
    text = "<think>x</think>\n<answer>a | b</answer> and more"
    writer = FreeWriter(vocabulary, 500, [])
    for token in vocabulary.encode(text):
        if not writer.done:
            writer.write(token, -0.5)
    assert writer.done
    assert writer.finish_reason == "stop"
    assert writer.text().startswith("<think>x</think>\n<answer>a | b</answer>")
    assert writer.mean_logprob == -0.5

    ended = FreeWriter(vocabulary, 500, [7], opened=True)
    ended.write(vocabulary.encode("a")[0], -1.0)
    ended.write(7, -1.0)
    assert ended.done
    assert ended.text() == "<think>a"

    spent = FreeWriter(vocabulary, 2, [])
    for token in vocabulary.encode("monocyte monocyte monocyte")[:2]:
        spent.write(token, -1.0)
    assert (spent.done, spent.finish_reason) == (True, "length")


def test_paths_lead_to_the_end_by_every_step(vocabulary):
    text = " T cell, CD4-positive |"
    path = vocabulary.paths(text)
    data = text.encode()
    for at, steps in enumerate(path):
        for token, end in steps.items():
            assert token in vocabulary.by_bytes[data[at:end]]
            assert end == len(data) or path[end]
    assert torch.tensor(sorted(path[0])).numel() > 0
