"""Every public name of dpsjax.policy, and what checkpoints and adapters are read with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsjax import policy
from dpsjax.files import netpbm
from dpsjax.policy import config_json, lora
from dpsjax.policy.decode import truncate_logits
from tests.inputs.wrong import Row, complaints

KEY = jax.random.key(0)
SHAPE = {
    "vocab_size": 8,
    "width": 8,
    "mlp_width": 8,
    "layers": 1,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 4,
}
TINY = policy.PolicyConfig(**SHAPE)
MODEL = policy.Policy(TINY, rngs=nnx.Rngs(0))
SIGHT = policy.tiny_vision(3)
PARAMS = nnx.split(MODEL)[1]
MESH = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"))
PROMPT = {
    "prompt": np.array([[1, 2], [0, 3]], np.int32),
    "prompt_mask": np.array([[True, True], [False, True]]),
}
TOKENS = np.ones((2, 3, 4), np.int32)
JSON = {
    "model_type": "qwen3",
    "vocab_size": 8,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


def shaped(call, **arguments):
    """The shapes of a result: nothing is compiled. Arrays are closed over, as concrete ones."""
    return jax.eval_shape(lambda: call(**arguments))


def adapters(**given):
    """The shapes of adapters; without the extra they have none."""
    try:
        return jax.eval_shape(lambda: lora.init_lora(config=TINY, **given))
    except ImportError as error:
        return str(error)


def chat(folder):
    """A tokenizer that is not there."""
    try:
        return policy.load_tokenizer(folder)
    except (ImportError, FileNotFoundError) as error:
        return str(error)


class Letters:
    """A tokenizer of letters."""

    pad_id = 0

    def encode(self, text):
        return [ord(letter) for letter in text]


ROWS = {
    "PolicyConfig": Row(
        policy.PolicyConfig,
        {
            **SHAPE,
            "tied_embeddings": True,
            "attention_bias": False,
            "qk_norm": False,
            "norm_eps": 1e-6,
            "rope": policy.Rope(sections=(1, 1, 0)),
            "vision": SIGHT,
        },
        also={"kv_heads": [3], "head_dim": [5]},
    ),
    "PolicyConfig, from_dict": Row(
        policy.PolicyConfig.from_dict,
        {"values": TINY.to_dict()},
        also={"values": [{"depth": 3}]},
        said={"values": "(values|fields)"},
    ),
    "Rope": Row(policy.Rope, {**vars(policy.Rope(sections=(1, 1, 1))), "scaling": "llama3"}),
    "VisionConfig": Row(
        policy.VisionConfig,
        {**vars(SIGHT), "start_token": 1, "end_token": 2},
        also={"heads": [3], "window": [30], "max_pixels": [1]},
    ),
    "tiny_vision": Row(policy.tiny_vision, {"image_token": 3}),
    "picture_batch": Row(
        policy.picture_batch,
        {
            "prompts": [[netpbm(np.zeros((28, 28), np.uint8))], []],
            "vision": SIGHT,
            "patches": 4,
        },
        also={"prompts": [[[b"nothing"]], [["text"]], [b"P5"]]},
    ),
    "Compute": Row(policy.Compute, vars(policy.Compute())),
    "Sampling": Row(
        policy.Sampling,
        {
            "max_tokens": 4,
            "temperature": 1.0,
            "top_k": 2,
            "top_p": 0.9,
            "stop_ids": (1, 2),
            "pad_id": 0,
        },
    ),
    "Policy": Row(
        policy.Policy,
        {"config": TINY, "compute": policy.Compute(), "rngs": nnx.Rngs(0)},
    ),
    "abstract_policy": Row(policy.abstract_policy, {"config": TINY, "compute": policy.Compute()}),
    "tiny_config": Row(policy.tiny_config, {"vocab_size": 8}),
    "shardings": Row(policy.shardings, {"params": PARAMS, "mesh": MESH}),
    "generate": Row(
        lambda **given: shaped(policy.generate, **given),
        {
            "model": MODEL,
            "key": KEY,
            **PROMPT,
            "sampling": policy.Sampling(max_tokens=4),
            "group": 2,
        },
        also={
            "prompt": [np.array([[1, 2], [0, 8]], np.int32)],
            "prompt_mask": [np.array([[True, False], [False, True]])],
            "sampling": [policy.Sampling(max_tokens=4, stop_ids=(99,))],
        },
    ),
    "load_tokenizer": Row(chat, {"folder": "/nowhere"}),
    "left_pad": Row(
        policy.left_pad,
        {"prompts": [[1, 2], [3]], "size": 2, "tokenizer": Letters(), "pad_id": 0},
        also={"prompts": ["", ["ab", "abc"], [[1.5]], [[-1]], [[2**40]], [[[1]]], [["a"]]]},
    ),
    "token_log_probs": Row(
        lambda **given: shaped(policy.token_log_probs, **given),
        {
            "model": MODEL,
            **PROMPT,
            "tokens": TOKENS,
            "mask": np.ones_like(TOKENS, bool),
            "temperature": 1.0,
            "chunk": 2,
        },
    ),
}
INNER = {
    "truncate_logits": Row(
        lambda **given: shaped(truncate_logits, **given),
        {"logits": np.ones((2, 8), np.float32), "top_k": 2, "top_p": 0.9},
        loose=True,
    ),
    "config_from_json": Row(
        config_json.config_from_json, {"values": JSON}, said={"values": "(values|config.json)"}
    ),
    "config_to_json": Row(config_json.config_to_json, {"config": TINY}),
    "init_lora": Row(
        adapters,
        {"key": KEY, "rank": 2, "alpha": 16.0},
        said={"rank": "(lora_)?rank", "alpha": "(lora_)?alpha"},
    ),
}
FIELDS = {
    name: Row(lambda **given: config_json.config_from_json(JSON | given), {name: value})
    for name, value in JSON.items()
}
# Of each that reads or writes files: arguments it works with.
FILES = {
    "save_weights": {"path": "x.safetensors", "config": TINY, "params": PARAMS},
    "load_weights": {"path": "policy.safetensors", "mesh": MESH},
    "save_checkpoint": {
        "folder": "out",
        "config": TINY,
        "params": PARAMS,
        "source": "checkpoint",
        "dtype": "float32",
        "shard_bytes": 10_000,
    },
    "load_checkpoint": {"folder": "checkpoint", "mesh": MESH},
    "stored_config": {"path": "checkpoint"},
}


@pytest.mark.parametrize("name", ROWS | INNER)
def test_a_wrong_argument_is_named(name):
    assert complaints((ROWS | INNER)[name]) == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_number_in_a_checkpoint_is_named(name):
    assert complaints(FIELDS[name]) == []


@pytest.mark.parametrize("name", FILES)
def test_reading_and_writing_name_a_wrong_argument(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy.save_weights("policy.safetensors", TINY, PARAMS)
    policy.save_checkpoint("checkpoint", TINY, PARAMS)

    def call(**arguments):
        try:
            getattr(policy, name)(**arguments)
        except OSError as error:  # a path that is none
            assert str(error)

    wider = dataclasses.replace(TINY, width=16)
    row = Row(call, FILES[name], also={"config": [wider], "params": [{"embed_vd": np.ones(3)}]})
    assert complaints(row) == []


def test_every_public_name_is_covered():
    records = {name for name in policy.__all__ if hasattr(getattr(policy, name), "_fields")}
    records.add("ChatTokenizer")  # of load_tokenizer
    assert set(policy.__all__) - records == {name.split(",")[0] for name in ROWS} | FILES.keys()


few = settings(max_examples=60, deadline=None, derandomize=True)


@few
@given(st.data())
def test_a_damaged_file_of_weights_is_refused_or_whole(tmp_path_factory, data):
    """Bytes changed, cut off or put in anywhere: a ValueError that names the file, or weights."""
    path = tmp_path_factory.mktemp("weights") / "policy.safetensors"
    policy.save_weights(path, TINY, PARAMS)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    start = data.draw(st.integers(0, header + 8))
    end = data.draw(st.sampled_from([start, start + 1, start + 40, len(content)]))
    content[start:end] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    try:
        config, params = policy.load_weights(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        lambda leaf: leaf.shape, policy.abstract_policy(config)[1]
    )


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@few
@given(st.sampled_from([*JSON, "rope_scaling", "rope_parameters", "layer_types"]), json_values)
def test_any_json_in_a_checkpoint(name, value):
    try:
        config = config_json.config_from_json(JSON | {name: value})
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    assert isinstance(config, policy.PolicyConfig)


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", "{", "", '{"weight_map": 3}', '{"weight_map": {}}']
)
def test_an_index_that_is_none(tmp_path, text):
    policy.save_checkpoint(tmp_path, TINY, PARAMS)
    (tmp_path / "model.safetensors").rename(tmp_path / "part.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="index"):
        policy.load_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", ""])
def test_a_configuration_that_is_none(tmp_path, text):
    policy.save_checkpoint(tmp_path, TINY, PARAMS)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        policy.load_checkpoint(tmp_path)
