"""The puzzles and the tiny model of the other solvers' tests, with wider attention heads."""

import runpy
import sys
from pathlib import Path

import pytest

_SOLVERS = Path(__file__).resolve().parents[1] / "solvers"
sys.path.append(str(_SOLVERS))  # for `tiny`
_room = runpy.run_path(str(_SOLVERS / "conftest.py"))
toys, answers, language = (_room[name] for name in ("toys", "answers", "language"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    import tiny
    from transformers import Qwen3Config

    texts = [_room["user_message"](_room["toy_puzzle"](seed, "d")) for seed in range(60)]
    with pytest.MonkeyPatch.context() as patch:
        # vLLM's attention on CPU has no kernel for heads of width 8.
        patch.setattr(tiny, "Qwen3Config", lambda **c: Qwen3Config(**{**c, "head_dim": 32}))
        return tiny.make_model(
            tmp_path_factory.mktemp("models") / "tiny", tiny.make_tokenizer(texts)
        )
