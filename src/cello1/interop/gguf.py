"""Models as GGUF files, which llama.cpp, Ollama and similar programs run.

llama.cpp pre-tokenizes text by a fixed set of named rules, none of which fits the tokenizer of
`cello1 base`. Tokens with blanks or punctuation in them (``CD3D, ``, ``Cell 12``) are therefore
written as user-defined tokens, which are matched before text is split, and the closest rule is
named for the rest. docs/interop.md describes the remaining differences.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cello1.errors import InputError, brief
from cello1.puzzles.prompt import PIECES
from cello1.runs import replacing

if TYPE_CHECKING:
    import numpy as np

DType = Literal["float32", "bfloat16", "float16"]
_OURS = "viking"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Pre-tokenization pattern -> llama.cpp's name for it.
_RULES = {
    PIECES: _OURS,
    _QWEN2: "qwen2",
    _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|"): "llama-bpe",
    "digits, then GPT-2": "smollm",
    "GPT-2": "gpt-2",
}
_MODELS = {"qwen3": "QWEN3", "qwen2": "QWEN2", "llama": "LLAMA"}
_ELSE = "convert it with llama.cpp's own convert_hf_to_gguf.py"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


def export_gguf(source: str | Path, path: Path, *, dtype: DType | None = None) -> int:
    """Write a model with its tokenizer and chat template as one GGUF file.

    Parameters
    ----------
    source
        ``mini`` for the embedded model, a folder, or a name on the Hugging Face hub.
    path
        The file.
    dtype
        Data type of the matrices; by default that of the model's files. Vectors are float32.

    Returns
    -------
    int
        Number of parameters.

    Raises
    ------
    InputError
        When gguf is not installed, there is no such model, or its architecture must be converted
        by llama.cpp's own program.
    """
    if find_spec("gguf") is None:
        raise InputError("GGUF files need the package gguf: pip install 'cello1[gguf]'")
    import gguf

    from cello1.solvers.local.loading import load_config, load_model, load_tokenizer

    if str(source) == "mini":
        from cello1.solvers.local.mini import FOLDER

        source = FOLDER
    config = load_config(source)
    if config.model_type not in _MODELS:
        kinds = ", ".join(sorted(_MODELS))
        raise InputError(f"{source} is a {config.model_type} model; expected {kinds}: {_ELSE}")
    rope = dict(config.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise InputError(f"{source} stretches its context ({rope['rope_type']}): {_ELSE}")
    tokenizer = load_tokenizer(source)
    rule = _rule(json.loads(tokenizer.backend_tokenizer.to_str()), str(source))
    model = load_model(source, "auto")
    kind = getattr(gguf.GGMLQuantizationType, _TYPES[dtype or str(model.dtype)[6:]])
    arch = getattr(gguf.MODEL_ARCH, _MODELS[config.model_type])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    with replacing(path) as part:
        writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[arch])
        _write_settings(writer, config, rope["rope_theta"], Path(source).name, kind)
        _write_tokenizer(writer, tokenizer, rule, config.vocab_size)
        tied = config.tie_word_embeddings
        for name, tensor in model.state_dict().items():
            if tied and name == "lm_head.weight":
                continue
            array = tensor.float().numpy()
            if config.model_type == "llama":
                array = _permuted(name, array, config)
            own = kind if array.ndim > 1 else gguf.GGMLQuantizationType.F32
            data = gguf.quants.quantize(array, own)
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=own)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return int(model.num_parameters())


_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def _write_settings(writer: Any, config: Any, theta: float, name: str, kind: Any) -> None:
    from gguf import LlamaFileType

    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(theta))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    files = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16}
    writer.add_file_type(files.get(kind.name, LlamaFileType.MOSTLY_BF16))


def _write_tokenizer(writer: Any, tokenizer: Any, rule: str, size: int) -> None:
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    words: dict[int, str] = {i: word for word, i in core["model"]["vocab"].items()}
    kinds = dict.fromkeys(words, _NORMAL)
    if rule == _OURS:
        for i, word in [*words.items()]:
            text = word.replace("Ġ", " ").replace("Ċ", "\n")
            if _is_whole(text):
                words[i], kinds[i] = text, _USER_DEFINED
    for added in core["added_tokens"]:
        words[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    for i in range(size):
        words.setdefault(i, f"[PAD{i}]")
        kinds.setdefault(i, _UNUSED)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in core["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list([words[i] for i in sorted(words)])
    writer.add_token_types([kinds[i] for i in sorted(words)])
    writer.add_token_merges(merges)
    for add, i in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if i is not None:
            add(i)
    writer.add_add_bos_token(False)  # chat templates write it themselves
    writer.add_chat_template(re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", tokenizer.chat_template))


def _is_whole(text: str) -> bool:
    """Return whether a token has blanks or punctuation at which llama.cpp would split it."""
    cut = re.fullmatch(r" ?[^\s,|:.!?()]+|\s+|.", text) is None
    return text == ", " or (cut and re.fullmatch(PIECES, text) is not None)


def _rule(core: dict[str, Any], source: str) -> str:
    """Return llama.cpp's name for the pre-tokenization rule of a tokenizer."""
    steps = core["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    found = [step for step in steps if step.get("type") == "Split"]
    if core["model"]["type"] == "BPE" and not core["model"].get("byte_fallback"):
        last = steps[-1].get("type") == "ByteLevel"
        if len(found) == 1 and last:
            rule = _RULES.get(found[0]["pattern"].get("Regex"))
        else:
            digits = [step for step in steps if step.get("type") == "Digits"]
            plain = last and steps[-1].get("use_regex", True) and len(steps) == 1 + len(digits)
            each = all(step.get("individual_digits") for step in digits)
            known = "digits, then GPT-2" if digits else "GPT-2"
            rule = _RULES[known] if plain and each and core["normalizer"] is None else None
        if rule is not None:
            return rule
    raise InputError(
        f"the tokenizer of {source} cuts text in a way not known here "
        f"({brief(json.dumps(core['pre_tokenizer']))}): {_ELSE}"
    )


def _permuted(name: str, array: np.ndarray[Any, Any], config: Any) -> np.ndarray[Any, Any]:
    """Permute the rows of queries and keys to llama.cpp's layout of rotary embeddings."""
    if name.endswith("q_proj.weight"):
        heads = config.num_attention_heads
    elif name.endswith("k_proj.weight"):
        heads = config.num_key_value_heads
    else:
        return array
    rows, width = array.shape
    halves = array.reshape(heads, 2, rows // heads // 2, width)
    return halves.swapaxes(1, 2).reshape(rows, width)
