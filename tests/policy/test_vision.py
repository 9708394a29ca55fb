"""Pictures in a policy: the tower, positions, and that padding and texts pay nothing."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dpsjax.files import netpbm
from dpsjax.policy import (
    Compute,
    PolicyConfig,
    Rope,
    Sampling,
    VisionConfig,
    generate,
    left_pad,
    load_weights,
    picture_batch,
    save_weights,
    token_log_probs,
)
from dpsjax.policy.pictures import image_tokens, picture_size, target_size
from dpsjax.policy.vision import prompt_positions
from tests.oracles import vision as oracle
from tests.policy.conftest import make_policy, plain_params

IMAGE = 12
VISION = VisionConfig(
    image_token=IMAGE,
    width=16,
    mlp_width=20,
    layers=2,
    heads=2,
    full_layers=(1,),
    window=28,
    patch=7,
    channels=1,
    min_pixels=14 * 14,
    mean=(0.4,),
    std=(0.3,),
)
CONFIG = PolicyConfig(
    vocab_size=13,
    width=16,
    mlp_width=24,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,
    rope=Rope(sections=(1, 1, 1)),
    vision=VISION,
)
SIZES = [[(42, 28)], [], [(14, 14), (28, 14)]]


def _picture(size, seed):
    return netpbm(np.random.default_rng(seed).integers(0, 256, size, np.uint8))


PICTURES = [[_picture(size, 10 * i + j) for j, size in enumerate(s)] for i, s in enumerate(SIZES)]


def _prompts():
    rows = []
    for pictures in PICTURES:
        row = [1, 2]
        for data in pictures:
            row += [IMAGE] * image_tokens(data, VISION)
        rows.append([*row, 3, 4])
    return left_pad(rows)


@pytest.fixture(scope="module")
def case():
    policy = make_policy(CONFIG)
    tokens, mask = _prompts()
    return policy, jnp.asarray(tokens), jnp.asarray(mask), _images()


def _images(patches=None):
    return jax.tree.map(jnp.asarray, picture_batch(PICTURES, VISION, patches))


def test_the_tower_is_the_oracle(case):
    policy, _, _, images = case
    params = jax.tree.map(np.float64, plain_params(policy)["vision"])
    settings = dataclasses.asdict(VISION)
    for compute in (Compute(), Compute(scan_layers=True, query_chunk=5)):
        ours = jax.jit(lambda policy, own, c=compute: policy.vision(own, c))(policy, images)
        for row, pictures in enumerate(PICTURES):
            at = 0
            for data in pictures:
                height, width = picture_size(data)
                pixels = np.frombuffer(data[-height * width :], np.uint8)
                truth = oracle.embeddings(pixels.reshape(height, width, 1), params, settings)
                np.testing.assert_allclose(ours[row, at : at + len(truth)], truth, atol=2e-4)
                at += len(truth)


def test_positions(case):
    _, tokens, mask, images = case
    found = prompt_positions(tokens, mask, images, VISION)
    assert found[0, :, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]
    assert found[0, 2:8].tolist() == [[2, 2 + r, 2 + c] for r in range(3) for c in range(2)]
    assert found[1, -4:].tolist() == [[i] * 3 for i in range(4)]
    # one token, then two below each other: a picture takes its longer side
    assert found[2, -7:].tolist() == [
        [0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3], [3, 4, 3], [5, 5, 5], [6, 6, 6],
    ]  # fmt: skip


def test_room_to_spare_changes_nothing_and_texts_do_not_see(case):
    policy, tokens, mask, images = case
    answers = jnp.asarray([[[5, 6, 7], [8, 9, 5]]] * 3, jnp.int32)

    @jax.jit
    def run(tokens, mask, images):
        real = jnp.ones(answers.shape, bool)
        return token_log_probs(policy, tokens, mask, answers, real, images=images)[0]

    truth = run(tokens, mask, images)
    wider = jnp.pad(tokens, [(0, 0), (3, 0)]), jnp.pad(mask, [(0, 0), (3, 0)])
    np.testing.assert_allclose(run(*wider, _images(32)), truth, atol=1e-5)
    blind = run(tokens, mask, images._replace(pixels=images.pixels * 0))
    change = np.abs(blind - truth).max(axis=(1, 2))
    assert (change[[0, 2]] > 1e-2).all() and change[1] == 0
    np.testing.assert_allclose(run(tokens, mask, None)[1], truth[1], atol=1e-5)


def test_responses_have_the_log_probs_they_were_drawn_with(case):
    policy, tokens, mask, images = case
    sampling = Sampling(max_tokens=4, stop_ids=(1,))
    made = jax.jit(lambda key: generate(policy, key, tokens, mask, sampling, 2, images=images))(
        jax.random.key(0)
    )
    again = jax.jit(
        lambda rollouts: token_log_probs(
            policy, tokens, mask, rollouts.tokens, rollouts.mask, images=images
        )[0]
    )(made)
    np.testing.assert_allclose(again, made.log_probs, atol=2e-5)


def test_weights_come_back(case, tmp_path):
    policy = case[0]
    save_weights(tmp_path / "w.safetensors", CONFIG, nnx.state(policy))
    config, params = load_weights(tmp_path / "w.safetensors")
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, params, nnx.state(policy))
    assert CONFIG.num_params() == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_pictures_that_do_not_fit_are_refused(case):
    policy, tokens, mask, images = case
    short = images._replace(image=images.image.at[0, -4:].set(-1))
    with pytest.raises(ValueError, match="tokens for pictures"):
        generate(policy, jax.random.key(0), tokens, mask, Sampling(2), images=short)
    with pytest.raises(ValueError, match="multiple of 4 patches"):
        cut = jax.tree.map(lambda x: x[:, :7], images)
        generate(policy, jax.random.key(0), tokens, mask, Sampling(2), images=cut)
    blind = make_policy(dataclasses.replace(CONFIG, vision=None))
    with pytest.raises(ValueError, match="no vision tower"):
        generate(blind, jax.random.key(0), tokens, mask, Sampling(2), images=images)
    with pytest.raises(ValueError, match=r"prompts\[1\]: its pictures have more than patches=8"):
        picture_batch([[], PICTURES[0]], VISION, 8)
    with pytest.raises(ValueError, match=r"prompts\[0\]: .*cut off"):
        picture_batch([[PICTURES[0][0][:-1]]], VISION)
    with pytest.raises(ValueError, match="200 times"):
        target_size(1, 500, VISION)


def test_pillow_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"dpsjax\[vision\]"):
        picture_size(b"\x89PNG")


def test_damaged_files_are_named():
    pytest.importorskip("PIL", reason="needs the extra: vision")
    for data in (b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"GIF89a"):
        with pytest.raises(ValueError, match=r"prompts\[0\]: .*picture"):
            picture_batch([[data]], VISION)
