"""A language model in the hands of vLLM."""

from __future__ import annotations

import atexit
import os
from functools import cache
from importlib import import_module
from typing import Any

import torch
from transformers import AutoTokenizer

from cello1.errors import InputError
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.vocabulary import Vocabulary

_CPU_CACHE_BYTES = 2 << 30


class VllmModel(LanguageModel):
    """A model in vLLM; prompts are those of the parent, the weights are not loaded twice.

    Parameters
    ----------
    source
        A folder, or a name on the Hugging Face hub.

    Raises
    ------
    InputError
        When vLLM is not installed, there is no model, or its tokenizer has no chat template.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        # A process of its own, with none of our modules: vLLM 0.32 fails beside llvmlite on a CPU.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            vllm: Any = import_module("vllm")
        except ImportError as error:
            raise InputError(
                f"engine vllm needs vLLM ({error}); install it with: pip install 'cello1[serve]'"
            ) from error
        gpu = torch.cuda.is_available()
        # Compiling takes minutes on a CPU and gains little; half precision is slower there.
        on_cpu = {
            "dtype": "float32",
            "enforce_eager": True,
            "kv_cache_memory_bytes": _CPU_CACHE_BYTES,
        }
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            self.llm: Any = vllm.LLM(
                model=source,
                max_model_len=-1,  # the model's context, or what fits the memory
                enable_prefix_caching=True,
                seed=0,
                **({} if gpu else on_cpu),
            )
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().split("\n")[0]
            raise InputError(
                f"vLLM cannot load a causal language model from {source!r} ({first}); expected "
                "a folder with config, safetensors and tokenizer, or a name on the hub"
            ) from error
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError(
                f"the tokenizer of {source!r} has no chat template; use an "
                "instruct model, or set tokenizer.chat_template and save it"
            )
        # Without this, leaving Python waits for the engine's process for ever.
        atexit.register(self.llm.llm_engine.engine_core.shutdown)
        self.vocabulary = Vocabulary(self.tokenizer)
        self.context = int(self.llm.llm_engine.model_config.max_model_len)
        self.sampling: Any = import_module("vllm.sampling_params")


load = cache(VllmModel)  # one engine for all samples of a vote
