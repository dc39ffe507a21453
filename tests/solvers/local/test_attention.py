import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from cello1.solvers.local.attention import NAME, decode_attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["bool", "float", "none"])
def test_one_query_attends_as_pytorch_does(key_heads, kind, dtype):
    dice = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 1, 8, generator=dice).to(dtype)
    key, value = (torch.randn(3, key_heads, 11, 8, generator=dice).to(dtype) for _ in range(2))
    seen = torch.ones(3, 1, 1, 11, dtype=torch.bool)
    seen[1, ..., :4] = False
    added = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -1e30)
    mask = {"bool": seen, "float": added, "none": None}
    ours, _ = decode_attention(torch.nn.Module(), query, key, value, mask[kind], scaling=0.3)
    theirs = scaled_dot_product_attention(
        query, key, value, attn_mask=mask[kind], scale=0.3, enable_gqa=True
    )
    close = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=close)


def test_a_loaded_model_decodes_as_the_plain_one(language, tiny_model, toys):
    assert language.model.config._attn_implementation == NAME
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert plain.config._attn_implementation == "sdpa"
    for puzzle in toys[:5]:
        ids = torch.tensor([language.prompt(puzzle)[0]])
        more = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 40, "do_sample": False}
        assert torch.equal(
            language.model.generate(input_ids=ids, **more), plain.generate(input_ids=ids, **more)
        )
