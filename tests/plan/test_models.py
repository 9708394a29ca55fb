"""Presets have the parameters that their checkpoints have; names of slices are read strictly."""

import json

import pytest

from dpsjax.plan.chips import CHIPS, parse_slice
from dpsjax.plan.models import MODELS, find_model

# Sizes of the checkpoints on huggingface.co (tied heads counted once).
SIZES = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "r1-distill-qwen-1.5b": 1_777_088_000,
    "r1-distill-qwen-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
}


def test_presets_have_their_checkpoints_size():
    assert {name: config.num_params() for name, config in MODELS.items()} == SIZES


def test_a_folder_is_read(tmp_path):
    values = {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_theta": 1e6,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert find_model(str(tmp_path)) == MODELS["qwen2.5-7b"]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        find_model(str(tmp_path))


def test_an_unknown_model_lists_the_known():
    with pytest.raises(ValueError, match=r"model='qwen9'.*qwen2.5-7b"):
        find_model("qwen9")


@pytest.mark.parametrize(
    ("name", "topology", "size", "accelerator"),
    [
        ("v5e:16x16", "v5e:16x16", 256, "v5litepod-256"),
        ("v5e-64", "v5e:8x8", 64, "v5litepod-64"),
        ("v5litepod-8", "v5e:2x4", 8, "v5litepod-8"),
        ("v5p-128", "v5p:4x4x4", 64, "v5p-128"),
        ("v6e-256", "v6e:16x16", 256, "v6e-256"),
    ],
)
def test_slices(name, topology, size, accelerator):
    where = parse_slice(name)
    assert (where.topology, where.size, where.accelerator_type) == (topology, size, accelerator)


@pytest.mark.parametrize(
    "name", ["v9:2x2", "v5e", "v5e:4x4x4", "v5e:0x4", "v5p-7", "v6e-x", "v5e:"]
)
def test_no_such_slice(name):
    with pytest.raises(ValueError, match="topology="):
        parse_slice(name)


def test_chips_are_plausible():
    for name, chip in CHIPS.items():
        assert name == chip.name
        assert 100 < chip.flops / chip.memory_bandwidth < 1000  # operations a byte
        assert chip.link_bandwidth < chip.memory_bandwidth
