"""A checkpoint folder as public models come, small and with random weights."""

import json
from pathlib import Path

import jax
import tokenizers
from flax import nnx

from dpsjax.policy import Policy, PolicyConfig, Rope, VisionConfig, save_checkpoint

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_folder(folder: Path, *, template: bool = True, sees: bool = False) -> None:
    """A Qwen2-like model of two layers with a byte-level tokenizer; like Qwen2.5-VL if it sees."""
    vision = VisionConfig(263, 16, 16, 2, 2, (1,), start_token=261, end_token=262)
    config = PolicyConfig(
        rope=Rope(sections=(2, 1, 1) if sees else ()),
        vision=vision if sees else None,
        vocab_size=264,  # more than the tokenizer has, as public models do
        width=32,
        mlp_width=64,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        attention_bias=True,
    )
    save_checkpoint(folder, config, nnx.split(Policy(config, rngs=nnx.Rngs(0)))[1])
    specials = ["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"]
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(specials)
    if sees:
        marks = ["<|spare|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
        backend.add_special_tokens(marks)
        assert backend.token_to_id(marks[-1]) == 263
    backend.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "pad_token": "<|pad|>"}
    if template:
        settings["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    stops = [backend.token_to_id("<|end|>"), backend.token_to_id("<|user|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))


def logits(config: PolicyConfig, params, tokens):
    """float32[V] after the last of some tokens."""
    from dpsjax.policy import abstract_policy

    model = nnx.merge(abstract_policy(config)[0], params)
    positions = jax.numpy.arange(tokens.shape[1], dtype=jax.numpy.int32)[None]
    hidden = model(tokens, positions, jax.numpy.ones(tokens.shape, bool))
    return model.logits(hidden[0, -1])
