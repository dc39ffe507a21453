"""A language model in the hands of vLLM."""

from __future__ import annotations

import atexit
import os
from functools import cache
from importlib import import_module
from typing import Any

import torch

from cello1.errors import InputError, first_line
from cello1.solvers.local.loading import model_folder, refuse_pickles
from cello1.solvers.local.prompter import Prompter

_CPU_CACHE_BYTES = 2 << 30


class VllmModel:
    """A model in vLLM, asked in the same tokens as anywhere else.

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
        # A process of its own, with none of our modules: vLLM 0.32 fails beside llvmlite on a CPU.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            vllm: Any = import_module("vllm")
        except ImportError as error:
            raise InputError(
                f"engine vllm needs vLLM ({error}); install it with: pip install 'cello1[serve]'"
            ) from error
        folder = model_folder(source)
        refuse_pickles(folder)
        self.prompter = Prompter(source)
        self.prompt, self.vocabulary = self.prompter.prompt, self.prompter.vocabulary
        gpu = torch.cuda.is_available()
        # Compiling takes minutes on a CPU and gains little; half precision is slower there.
        on_cpu = {
            "dtype": "float32",
            "enforce_eager": True,
            "kv_cache_memory_bytes": _CPU_CACHE_BYTES,
        }
        try:
            self.llm: Any = vllm.LLM(
                model=str(folder),
                trust_remote_code=False,
                max_model_len=-1,  # the model's context, or what fits the memory
                enable_prefix_caching=True,
                seed=0,
                **({} if gpu else on_cpu),
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"vLLM cannot load a causal language model from {source!r} ({first_line(error)}); "
                "expected a folder with config, safetensors and tokenizer, or a name on the hub"
            ) from error
        # Without this, leaving Python waits for the engine's process for ever.
        atexit.register(self.llm.llm_engine.engine_core.shutdown)
        self.context = int(self.llm.llm_engine.model_config.max_model_len)
        self.sampling: Any = import_module("vllm.sampling_params")


load = cache(VllmModel)  # one engine for all samples of a vote
