"""The shipped base is the file its card describes, small, and made for the default task."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from dpsjax.tasks.countdown import base_path, countdown


@pytest.fixture(scope="module")
def card():
    return json.loads(base_path().with_suffix(".card.json").read_text())


def test_tensors_are_those_of_the_card(card):
    digest = hashlib.sha256()
    for name, array in sorted(load_file(base_path()).items()):
        digest.update(name.encode() + array.tobytes())
    assert digest.hexdigest() == card["tensors_sha256"]
    assert base_path().stat().st_size < 2_000_000


def test_weights_are_finite_float32_and_counted(card):
    weights = load_file(base_path())
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(array).all() for array in weights.values())
    assert sum(array.size for array in weights.values()) == card["parameters"]


def test_made_for_the_default_task(card):
    assert card["task_sha256"] == countdown().fingerprint()


def test_regime(card):
    # Wrong by habit, not by noise: the likeliest response is right less often than a drawn one.
    rates, greedy = card["held_out_pass_rate"], card["held_out_greedy"]
    assert greedy["all"] < rates["all"]
    ordered = [rates[f"{size} numbers"] for size in (2, 3, 4)]
    assert ordered == sorted(ordered, reverse=True)
    shares = [card[f"train_{name}"]["all"] for name in ("all_wrong", "mixed", "all_right")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert shares[1] < 0.45
