"""Tiny random Qwen2.5-VL checkpoints made by transformers: the same logits, in both directions."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

torch = pytest.importorskip("torch", reason="needs the extra: parity")
transformers = pytest.importorskip("transformers", reason="needs the extra: parity")
Image = pytest.importorskip("PIL.Image", reason="needs the extra: vision")

from dpsjax.files import netpbm  # noqa: E402
from dpsjax.policy import (  # noqa: E402
    Compute,
    Sampling,
    abstract_policy,
    generate,
    left_pad,
    load_checkpoint,
    picture_batch,
    save_checkpoint,
    token_log_probs,
)
from dpsjax.policy.pictures import image_tokens  # noqa: E402
from dpsjax.policy.vision import prompt_positions  # noqa: E402

IMAGE, START, END = 60, 58, 59
TEXT = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 3, 2]},
}
SIGHT = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_heads": 2,
    "out_hidden_size": 48,
    "fullatt_block_indexes": [1, 3],
}
MODEL = {"image_token_id": IMAGE, "vision_start_token_id": START, "vision_end_token_id": END}
LIMITS = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 40}
# Each row's pictures: height and width; one has several windows of eight patches, with remainders.
SIZES = [[(250, 140)], [], [(30, 61), (90, 33)], [(28, 28)]]


def _picture(size, seed):
    """Smooth, or resizing by another filter would be seen at once."""
    y, x = np.mgrid[: size[0], : size[1]]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x / rng.uniform(3, 9) + y / rng.uniform(3, 9)) for _ in range(3)]
    stream = io.BytesIO()
    Image.fromarray(((np.stack(waves, -1) + 1) * 127).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


PICTURES = [[_picture(size, 10 * i + j) for j, size in enumerate(s)] for i, s in enumerate(SIZES)]


def _make(folder, tied):
    torch.manual_seed(0)
    config = transformers.Qwen2_5_VLConfig(
        text_config=TEXT, vision_config=SIGHT, tie_word_embeddings=tied, **MODEL
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    _processor().save_pretrained(folder)
    return model


def _processor(kind="Qwen2VLImageProcessorPil"):
    if not hasattr(transformers, kind):  # older releases: one processor, with Pillow
        kind = "Qwen2VLImageProcessor"
    size = {"shortest_edge": LIMITS["min_pixels"], "longest_edge": LIMITS["max_pixels"]}
    return getattr(transformers, kind)(size=size)


def _prompts(vision):
    """Token ids of each row: text, its pictures between their marks, and text again."""
    rng, rows = np.random.default_rng(1), []
    for pictures in PICTURES:
        row = rng.integers(0, 58, 3).tolist()
        for data in pictures:
            row += [START, *[IMAGE] * image_tokens(data, vision), END, *rng.integers(0, 58, 2)]
        rows.append([*row, *rng.integers(0, 58, 4)])
    return left_pad([np.array(row) for row in rows])


def _theirs(model, tokens, mask):
    """Logits of transformers, with what its own processor makes of the pictures."""
    opened = [Image.open(io.BytesIO(data)) for pictures in PICTURES for data in pictures]
    seen = _processor()(images=opened, return_tensors="pt")
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            mm_token_type_ids=torch.tensor((tokens == IMAGE).astype(int)),
            **seen,
        )


def _ours(config, params, tokens, mask, images, compute=None):
    """Log-probabilities of every token of the vocabulary after the prompt and one token more."""
    policy = nnx.merge(abstract_policy(config, compute)[0], params)
    every = np.arange(61, dtype=np.int32)[None, :, None]
    pairs = np.concatenate([np.full_like(every, 5), every], axis=2)
    pairs = jnp.asarray(np.broadcast_to(pairs, (len(tokens), 61, 2)))
    run = jax.jit(lambda policy, *rest: token_log_probs(policy, *rest, images=images)[0])
    return np.asarray(run(policy, tokens, mask, pairs, jnp.ones(pairs.shape, bool)))


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vl")
    model = _make(folder, request.param)
    config, params = load_checkpoint(folder)
    tokens, mask = _prompts(config.vision)
    images = jax.tree.map(jnp.asarray, picture_batch(PICTURES, config.vision))
    return folder, model, config, params, jnp.asarray(tokens), jnp.asarray(mask), images


def _expected(model, tokens, mask):
    tokens, mask = np.asarray(tokens), np.asarray(mask)
    longer = np.concatenate([tokens, np.full((len(tokens), 1), 5)], axis=1)
    seen = np.concatenate([mask, np.ones((len(tokens), 1), bool)], axis=1)
    logits = _theirs(model, longer, seen).logits[:, -2:].numpy()
    assert logits.std() > 0.3
    return np.asarray(jax.nn.log_softmax(logits, axis=-1))


def test_logits_agree_with_and_without_pictures(case):
    _, model, config, params, tokens, mask, images = case
    truth = _expected(model, tokens, mask)
    for compute in (Compute(scan_layers=True, query_chunk=7, remat="full"), None):
        ours = _ours(config, params, tokens, mask, images, compute)
        np.testing.assert_allclose(ours[:, :, 1], truth[:, 1], atol=1e-4)
        np.testing.assert_allclose(ours[:, 0, 0], truth[:, 0, 5], atol=1e-4)
    blank = _ours(config, params, tokens, mask, images._replace(pixels=images.pixels * 0))
    change = np.abs(blank - ours).max(axis=(1, 2))
    assert (change[[0, 2, 3]] > 1e-2).all() and change[1] == 0  # the second row has none


def test_positions_are_those_of_transformers(case):
    _, model, config, _, tokens, mask, images = case
    kinds = torch.tensor((np.asarray(tokens) == IMAGE).astype(int))
    grids = [
        (1, int(images.row[i][own].max()) + 1, int(images.column[i][own].max()) + 1)
        for i in range(len(SIZES))
        for j in range(len(SIZES[i]))
        for own in [images.image[i] == j]
    ]
    theirs, _ = model.model.get_rope_index(
        input_ids=torch.tensor(np.asarray(tokens), dtype=torch.long),
        image_grid_thw=torch.tensor(grids),
        attention_mask=torch.tensor(np.asarray(mask), dtype=torch.long),
        mm_token_type_ids=kinds,
    )
    ours = np.asarray(prompt_positions(tokens, mask, images, config.vision))
    np.testing.assert_array_equal(ours[mask], theirs.permute(1, 2, 0).numpy()[mask])


def test_the_folder_is_written_back(case, tmp_path):
    folder, model, config, params, tokens, mask, _ = case
    truth = _theirs(model, np.asarray(tokens), np.asarray(mask)).logits.numpy()[np.asarray(mask)]
    for out, source in (("out", folder), ("bare", None)):
        save_checkpoint(tmp_path / out, config, params, source=source)
        again = transformers.AutoModelForImageTextToText.from_pretrained(
            tmp_path / out, dtype=torch.float32
        ).eval()
        assert type(again) is type(model)
        logits = _theirs(again, np.asarray(tokens), np.asarray(mask)).logits.numpy()
        np.testing.assert_allclose(logits[np.asarray(mask)], truth, atol=1e-5)
    ours, values = load_checkpoint(tmp_path / "out")
    assert ours == config  # with the limits of pixels, of the processor's own file
    jax.tree.map(np.testing.assert_array_equal, values, params)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    _, placed = load_checkpoint(tmp_path / "out", mesh=mesh)
    qkv = placed["vision"]["layers"]["qkv_dcnh"][...]
    assert qkv.addressable_shards[0].data.shape == (4, 16, 3, 1, 16)
    jax.tree.map(np.testing.assert_array_equal, placed, params)


def test_greedy_generation_agrees(case):
    _, model, config, params, tokens, mask, images = case
    policy = nnx.merge(abstract_policy(config)[0], params)
    sampling = Sampling(max_tokens=6, temperature=0.0)
    run = jax.jit(lambda *rest: generate(*rest, sampling, images=images))
    ours = run(policy, jax.random.key(0), tokens, mask)
    opened = [Image.open(io.BytesIO(data)) for pictures in PICTURES for data in pictures]
    start = torch.tensor(np.asarray(tokens), dtype=torch.long)
    theirs = model.generate(
        input_ids=start,
        attention_mask=torch.tensor(np.asarray(mask), dtype=torch.long),
        mm_token_type_ids=(start == IMAGE).long(),
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        **_processor()(images=opened, return_tensors="pt"),
    )
    np.testing.assert_array_equal(ours.tokens[:, 0], theirs[:, start.shape[1] :].numpy())


@pytest.mark.parametrize("kind", ["Qwen2VLImageProcessorPil", "Qwen2VLImageProcessor"])
def test_preprocessing_is_that_of_transformers(case, kind):
    vision = case[2].vision
    if not kind.endswith("Pil"):
        pytest.importorskip("torchvision", reason="the other processor needs it")
    assert (vision.min_pixels, vision.max_pixels) == tuple(LIMITS.values())
    wide = netpbm(np.arange(28 * 56 * 3, dtype=np.uint8).reshape(28, 56, 3))
    for data in [*(data for pictures in PICTURES for data in pictures), wide]:
        seen = _processor(kind)(images=Image.open(io.BytesIO(data)), return_tensors="pt")
        truth = seen["pixel_values"].numpy().reshape(-1, 3, 2, 196)
        ours = picture_batch([[data]], vision)
        unit = ours.pixels[0].reshape(-1, 3, 196) / 255
        unit = (unit - np.reshape(vision.mean, (1, 3, 1))) / np.reshape(vision.std, (1, 3, 1))
        grid = seen["image_grid_thw"][0].tolist()
        assert grid == [1, int(ours.row.max()) + 1, int(ours.column.max()) + 1]
        level = 1 / 255 / min(vision.std)  # torchvision rounds a few pixels the other way
        limit = 1e-5 if kind.endswith("Pil") else 1.01 * level
        assert np.abs(truth - unit[:, :, None]).max() < limit
