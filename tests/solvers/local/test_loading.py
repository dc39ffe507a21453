"""Model folders of strangers: nothing in them runs, and what is damaged is named in one line."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import TEMPLATE, make_model, make_tokenizer
from tokenizers import AddedToken

from cello1.errors import InputError
from cello1.puzzles.prompt import user_message
from cello1.solvers.local import loading
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.loading import load_model, model_folder
from cello1.solvers.local.prompter import Prompter

SOURCES = Path(loading.__file__).resolve().parents[2]


@pytest.fixture
def folder(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_one_module_alone_reads_model_folders():
    found = [p for p in SOURCES.rglob("*.py") if "from_pretrained(" in p.read_text("utf-8")]
    assert [p.relative_to(SOURCES).as_posix() for p in found] == ["solvers/local/loading.py"]
    calls = (SOURCES / "solvers/local/loading.py").read_text().split("from_pretrained(")[1:]
    assert all(
        "trust_remote_code=False" in c[:120] for c in calls if not c.startswith("model, str")
    )


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_folder_is_neither_run_nor_asked_about(folder, known, monkeypatch):
    marker = folder / "ran"
    (folder / "modeling_evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass Evil: pass\nclass EvilConfig: pass\n"
    )
    names = {"AutoConfig": "modeling_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.Evil",
             "AutoTokenizer": ["modeling_evil.Evil", None]}  # fmt: skip
    for name in ("config.json", "tokenizer_config.json"):
        edit(folder / name, lambda content: content.update(auto_map=names))
    if not known:
        edit(folder / "config.json", lambda content: content.update(model_type="evil"))
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked"))
    if known:
        assert LanguageModel(folder).ends
    else:
        with pytest.raises(InputError, match=r"cannot be loaded \("):
            LanguageModel(folder)
    assert not marker.exists()
    assert "modeling_evil" not in sys.modules


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled \(pytorch_model\.bin\).* expected \*\.safete"):
        LanguageModel(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="expected a folder with config, safetensors"):
        LanguageModel(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "extra.jinja"])
def test_pipes_in_a_folder_are_refused(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name} is no plain file"):
        LanguageModel(folder)


DAMAGE = {
    "torn weights": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:5_000]
    ),
    "weights of a few bytes": lambda f: (f / "model.safetensors").write_bytes(b"abc"),
    "a config that is a list": lambda f: (f / "config.json").write_text("[]"),
    "a config that is a number": lambda f: (f / "config.json").write_text("7"),
    "a config of odd types": lambda f: edit(
        f / "config.json", lambda c: c.update(hidden_size="wide", model_type=["qwen3"])
    ),
    "a torn config": lambda f: (f / "config.json").write_text('{"model_type": "qw'),
    "sizes that are not those of the weights": lambda f: edit(
        f / "config.json", lambda c: c.update(hidden_size=48)
    ),
    "a torn tokenizer": lambda f: (f / "tokenizer.json").write_text('{"version": "1.0", '),
    "a tokenizer that is a list": lambda f: (f / "tokenizer.json").write_text("[1, 2]"),
    "tokenizer settings that are a list": lambda f: (f / "tokenizer_config.json").write_text("[]"),
    "no tokenizer but its template": lambda f: [
        (f / "chat_template.jinja").write_text(TEMPLATE),
        *((f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")),
    ],
    "an end that is a word": lambda f: (f / "generation_config.json").write_text(
        '{"eos_token_id": "x"}'
    ),
    "ends below all tokens": lambda f: (f / "generation_config.json").write_text(
        '{"eos_token_id": [2, -7]}'
    ),
    "bytes that are no text": lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damaged_folders_are_one_error(folder, damage):
    DAMAGE[damage](folder)
    with pytest.raises(InputError) as told:
        LanguageModel(folder)
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


BAD_TEMPLATES = {
    "{% for m in messages %}": "fails",  # no endfor
    "{{ messages[0].nothing.at.all }}": "fails",
    "{{ raise_exception('no chats') }}": "fails: no chats",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}": "did not end within",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}{{ ns.x }}": "memory|did not end within",
    "{% for i in range(99999) %}and so on and on {% endfor %}": "characters around a short chat",
}


@pytest.mark.parametrize("template", list(BAD_TEMPLATES))
def test_templates_that_are_broken_or_endless(folder, template, monkeypatch):
    monkeypatch.setattr("cello1.solvers.local.prompter._SECONDS", 1.0)
    (folder / "chat_template.jinja").write_text(template)
    begun = time.monotonic()
    with pytest.raises(InputError, match=BAD_TEMPLATES[template]):
        Prompter(folder)
    assert time.monotonic() - begun < 30


def test_system_roles_refused_in_any_wording_go_to_the_user(folder, toys):
    template = (
        "{% if messages[0].role not in ('user', 'assistant') %}{{ raise_exception('nur user!') }}"
        "{% endif %}" + TEMPLATE
    )
    (folder / "chat_template.jinja").write_text(template)
    prompter = Prompter(folder)
    text = prompter.tokenizer.decode(prompter.prompt(toys[0])[0])
    assert "<|im_start|>user\n" in text
    assert "<|im_start|>system" not in text
    assert user_message(toys[0]) in text


GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else "
    "m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@pytest.mark.parametrize("special", [True, False])
def test_the_end_of_a_turn_need_not_be_the_end_token(toys, tmp_path, special):
    tokenizer = make_tokenizer([user_message(p) for p in toys], template=GEMMA)
    turns = [AddedToken(f"<{n}_of_turn>", special=special) for n in ("start", "end")]
    tokenizer.add_tokens(turns, special_tokens=special)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    language = LanguageModel(make_model(tmp_path / "gemma", tokenizer))
    assert end not in language.tokenizer.all_special_ids or not special
    assert language.prompter.ending() == [end]  # what fine-tuning teaches
    assert {end, language.tokenizer.eos_token_id} <= set(language.ends)  # where solving stops


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("cello1.hub.reachable", lambda endpoint: False)
    for source in (tmp_path / "gone", "models/gema", "no such model!"):
        begun = time.monotonic()
        with pytest.raises(InputError, match="there is no model folder"):
            model_folder(source)
        assert time.monotonic() - begun < 5
    with pytest.raises(InputError, match="the Hugging Face hub cannot be reached"):
        load_model("models/gema", "auto")
