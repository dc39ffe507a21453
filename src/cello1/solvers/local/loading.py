"""Load tokenizers, configurations and weights: the only module that reads model folders.

Nothing in a model folder may run code. Classes that come with a model (`auto_map`) are never
used, and weights are read from safetensors only, because unpickling a
`pytorch_model.bin` can execute anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from cello1.errors import InputError, first_line
from cello1.hub import snapshot

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*"]
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "adapter_model.bin")


def model_folder(source: str | Path) -> Path:
    """Return the folder of a model; a name on the hub is downloaded, or found in the cache.

    Raises
    ------
    InputError
        When there is no such model.
    """
    folder = Path(source)
    if (folder / "config.json").exists():
        # The libraries would wait for a pipe forever.
        odd = [p for p in folder.iterdir() if p.exists() and not (p.is_file() or p.is_dir())]
        if odd:
            raise InputError(
                f"{odd[0]} is no plain file; expected a folder with config, safetensors and "
                "tokenizer: remove it"
            )
        return folder
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{source} is an adapter, not a model; merge it first: cello1 merge")
    if folder.exists():
        raise InputError(
            f"{source} is no model folder: config.json is missing; expected a folder with config, "
            "safetensors and tokenizer"
        )
    missing = f"there is no model folder {str(source)!r}"
    expected = "expected a folder with config, safetensors and tokenizer, or a name on the hub"
    if not _HUB_NAME.fullmatch(str(source)):
        raise InputError(f"{missing}, and it is no name on the Hugging Face hub; {expected}")
    try:
        return snapshot(str(source), "model", patterns=_WANTED)
    except InputError as error:
        raise InputError(f"{missing}: {error}; {expected}") from error


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the left and has a chat template.

    Raises
    ------
    InputError
        When there is none, it is damaged, or it has no chat template.
    """
    folder = model_folder(source)
    with _reading(source, "tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, padding_side="left", trust_remote_code=False
        )
    if not tokenizer("B cell | T cell")["input_ids"]:
        raise InputError(
            f"the tokenizer of {source} knows no words; expected a folder with config, safetensors "
            "and tokenizer (tokenizer.json): copy the model again"
        )
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"the tokenizer of {source} has no chat template; use an instruct model, or set "
            "tokenizer.chat_template and save it"
        )
    return tokenizer  # type: ignore[no-any-return]


def load_config(source: str | Path) -> PretrainedConfig:
    """Load the configuration of a model.

    Raises
    ------
    InputError
        When there is none, or it is damaged.
    """
    folder = model_folder(source)
    with _reading(source, "configuration"):
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config


def load_model(
    source: str | Path, dtype: torch.dtype | str, *, kind: Any = AutoModelForCausalLM, **more: Any
) -> PreTrainedModel:
    """Load a model's weights.

    Parameters
    ----------
    source
        A folder, or a name on the Hugging Face hub.
    dtype
        Dtype of the weights in memory; "auto" keeps that of the files.
    kind
        Class of `transformers` to load with.
    more
        Further options of its `from_pretrained`.

    Raises
    ------
    InputError
        When there is no such model, its weights are damaged or pickled, or it needs code of its
        own.
    """
    folder = model_folder(source)
    refuse_pickles(folder)
    with _reading(source, "model"):
        return kind.from_pretrained(  # type: ignore[no-any-return]
            folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, **more
        )


def load_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """Apply an adapter to a model and return PEFT's model of both.

    Raises
    ------
    InputError
        When the adapter is damaged, pickled, or does not fit.
    """
    from peft import PeftModel

    refuse_pickles(folder)
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except Exception as error:  # damaged files raise many kinds
        raise InputError(
            f"the adapter in {folder} cannot be put on its base: {first_line(error)}"
        ) from error


def refuse_pickles(folder: Path) -> None:
    """Refuse weights that are pickled.

    Raises
    ------
    InputError
        When weights are pickled and there are no safetensors.
    """
    if any(folder.glob("*.safetensors")):
        return
    if found := sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern)):
        raise InputError(
            f"the weights in {folder} are pickled ({found[0]}), and reading a pickle can run any "
            "code; expected *.safetensors: convert them where you trust their source"
        )


@contextmanager
def _reading(source: str | Path, what: str) -> Iterator[None]:
    """Turn all errors of damaged or foreign files into one; hide the library's progress bar."""
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # of a GPU: not the fault of the file
            raise
        said = first_line(error)
        if "trust_remote_code" in str(error):
            said = "it needs Python code of its own, and code from model folders is never run"
        raise InputError(
            f"the {what} of {str(source)!r} cannot be loaded ({said}); expected a folder with "
            "config, safetensors and tokenizer of a causal language model"
        ) from error
    finally:
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
