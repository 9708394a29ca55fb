"""Checkpoint folders without transformers: configurations, refusals, tokenizer and template."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from dpsjax.policy.checkpoint import (
    config_from_json,
    config_to_json,
    load_checkpoint,
    save_checkpoint,
)
from dpsjax.policy.tokenizer import load_tokenizer
from tests.policy.conftest import VARIANTS, make_policy

QWEN2_HALF_B = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_a_public_configuration_has_its_published_size():
    config = config_from_json(QWEN2_HALF_B)
    assert config.num_params() == 494_032_768  # the model card's 0.49 billion
    assert config.attention_bias and config.head_dim == 64 and config.rope.theta == 1e6


@pytest.mark.parametrize("name", ["plain", "qwen3", "llama3", "linear"])
def test_configuration_and_weights_survive_a_folder(name, tmp_path):
    config, params = VARIANTS[name], nnx.split(make_policy(VARIANTS[name]))[1]
    assert config_from_json(config_to_json(config)) == config
    save_checkpoint(tmp_path, config, params, shard_bytes=3000)
    assert len(list(tmp_path.glob("model-0*.safetensors"))) > 2
    loaded_config, loaded = load_checkpoint(tmp_path)
    assert loaded_config == config
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    save_checkpoint(tmp_path, config, params)  # over the shards: the index must not survive
    assert not (tmp_path / "model.safetensors.index.json").exists()
    load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_json({**QWEN2_HALF_B, **change})


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="'hidden_size' is missing"):
        config_from_json({k: v for k, v in QWEN2_HALF_B.items() if k != "hidden_size"})
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(QWEN2_HALF_B))
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_checkpoint(tmp_path)
    index = {"weight_map": {"lm_head.weight": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside the folder"):
        load_checkpoint(tmp_path)


TEMPLATE = """{%- for m in messages %}
<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""


@pytest.fixture
def folder(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra: hf")
    pytest.importorskip("jinja2", reason="needs the extra: hf")
    words = ["[UNK]", "<end>", "<pad>", "hello", "world", "<user>", "<assistant>"]
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<end>", "<pad>", "<user>", "<assistant>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"eos_token": {"content": "<end>"}, "pad_token": "<pad>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1]}))
    return tmp_path


def test_tokenizer_reads_stop_tokens_and_renders_its_template(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("hello world") == [3, 4]
    assert tokenizer.decode([3, 4, 1]) == "hello world"
    assert (tokenizer.stop_ids, tokenizer.eos_id, tokenizer.pad_id) == ((2, 1), 2, 2)
    text = tokenizer.chat([{"role": "user", "content": " hello "}])
    assert text == "<user>hello<end>\n<assistant>"
    assert tokenizer.encode(text) == [5, 3, 1, 6]
    (folder / "chat_template.jinja").write_text("{{ enable }}")
    assert load_tokenizer(folder).chat([], enable=7) == "7"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% if %}", "chat template"),
        ("{{ cycler.__init__.__globals__.os.environ }}", "unsafe|undefined"),
        ("{% include '/etc/passwd' %}", "chat template"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 + 'a' }}", "chat template"),
    ],
)
def test_templates_run_in_a_sandbox(folder, template, message):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder).chat([{"role": "user", "content": "x"}])


def test_tokenizer_errors_are_named(folder):
    (folder / "chat_template.jinja").write_text("")
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(folder).chat([])
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<gone>"}))
    with pytest.raises(ValueError, match="eos_token '<gone>' is not in"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "generation_config.json").unlink()
    with pytest.raises(ValueError, match="no file names an end-of-sequence token"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


def test_a_template_that_looks_for_more_finds_nothing(folder):
    (folder / "chat_template.jinja").write_text(
        "[{{ ''.__class__ }}{{ '{0.__class__}'.format(1) }}]"
    )
    assert load_tokenizer(folder).chat([{"role": "user", "content": "x"}]) == "[]"
