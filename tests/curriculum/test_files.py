"""The saved file: whole or not at all, refused where it does not fit, without pickle."""

import hashlib
import io
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import Curriculum, fingerprint, selectors
from dpsjax.host import store
from dpsjax.host.describe import describe
from tests.curriculum.play import B, N, train

DPS = selectors.dps()


@pytest.fixture
def saved(tmp_path):
    curriculum = Curriculum(DPS, N, B, fingerprint=fingerprint(["a", "b"]))
    train(curriculum, 2)
    curriculum.ask()
    curriculum.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_what_does_not_fit_is_listed(saved):
    other = Curriculum(selectors.dps(decay=0.7), N + 1, B - 1, seed=3, fingerprint="another")
    state = other.state
    with pytest.raises(ValueError) as caught:
        other.load(saved)
    for line in (
        "num_prompts: 24 in the file, 25 here",
        "batch_size: 4 in the file, 3 here",
        "seed: 0 in the file, 3 here",
        "fingerprint: ",
        "decay: 0.5 in the file, 0.7",
    ):
        assert line in str(caught.value)
    assert other.metrics()["step"] == 0
    assert other.state is state


def test_another_selector_of_the_same_shapes_is_refused(saved):
    other = Curriculum(selectors.dps(entropy=0.1), N, B, fingerprint=fingerprint(["a", "b"]))
    with pytest.raises(ValueError, match="add_entropy"):
        other.load(saved)


def test_other_data_are_refused(tmp_path):
    def make(kind):
        return Curriculum(selectors.sec(), 4, 2, data={"source": kind})

    make([0, 1, 0, 1]).save(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"data\.source"):
        make([1, 1, 0, 1]).load(tmp_path / "saved")


def test_damage_is_seen_wherever_it_is(saved, tmp_path):
    raw = bytearray(saved.read_bytes())
    other = Curriculum(DPS, N, B, fingerprint=fingerprint(["a", "b"]))
    for place in np.random.default_rng(0).integers(0, len(raw), 40):
        worse = raw.copy()
        worse[place] ^= 0xFF
        (tmp_path / "worse").write_bytes(worse)
        with pytest.raises(ValueError, match="damaged"):
            other.load(tmp_path / "worse")
    for cut in (0, 10, len(raw) // 2, len(raw) - 1):
        (tmp_path / "worse").write_bytes(raw[:cut])
        with pytest.raises(ValueError, match=r"no file of Curriculum\.save, or damaged"):
            other.load(tmp_path / "worse")
    with pytest.raises(FileNotFoundError):
        other.load(tmp_path / "none")


def test_no_pickle_is_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    file = io.BytesIO()
    np.savez(file, **{"header.json": np.array([Trap()], object)})
    digest = hashlib.sha256(file.getbuffer()).digest()  # sound, as a forger would make it
    (tmp_path / "trap").write_bytes(b"dpsjax-curriculum 1\n" + digest + file.getbuffer())
    with pytest.raises(ValueError, match="allow_pickle"):
        Curriculum(DPS, N, B).load(tmp_path / "trap")
    assert not (tmp_path / "sprung").exists()


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Curriculum(DPS, N, B).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_arrays_of_any_type_come_back(tmp_path):
    arrays = {
        "brain": jnp.arange(3, dtype=jnp.bfloat16),
        "nothing": np.zeros((0, 3), np.int8),
        "scalar": np.float64(0.1),
        "yes": np.array([True, False]),
    }
    store.save(tmp_path / "file", {"x": 1}, {k: np.asarray(v) for k, v in arrays.items()})
    header, found = store.load(tmp_path / "file")
    assert header["x"] == 1
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(found[name], np.asarray(array))


def test_another_process_reads_it(saved):
    """The description of a selector, and a digest, are the same in any process."""
    code = (
        "import sys, jax; jax.config.update('jax_enable_x64', True)\n"
        "from dpsjax import Curriculum, fingerprint, selectors\n"
        f"c = Curriculum(selectors.dps(), {N}, {B}, fingerprint=fingerprint(('a', 'b')))\n"
        "c.load(sys.argv[1]); print(c.step, c.pending)"
    )
    words = [sys.executable, "-c", code, str(saved)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "[2]"], done.stderr


def test_every_hyperparameter_is_in_the_description():
    """Whatever keyword is changed, the description changes."""
    changed = {
        "decay": 0.25,
        "prior_alpha": 2.0,
        "prior_pi": (0.5, 0.25, 0.25),
        "num_states": 5,
        "target": "middle",
        "entropy": 0.5,
        "power": 2.0,
        "candidates": 8,
        "counts_dtype": jnp.bfloat16,
    }
    assert set(changed) == set(selectors.entry_of("dps").defaults())
    told = [describe(selectors.dps(**{name: value})) for name, value in changed.items()]
    for place, one in enumerate([describe(selectors.dps()), *told]):
        assert sum(one == other for other in [describe(selectors.dps()), *told]) == 1, place


def test_fingerprints_see_order_values_and_kinds():
    rows = [{"q": "1+1", "a": 2}, {"q": "2+2", "a": 4}]
    images = [{"image": b"123"}, {"image": np.arange(3)}, {"image": np.arange(3.0)}]
    some = [rows, rows[::-1], rows[:1], ["1+1"], [1, 2], [[1], [2]], images, images[1:], []]
    found = [fingerprint(value) for value in some]
    assert len(set(found)) == len(some)
    assert fingerprint(iter(rows)) == fingerprint([{"a": 2, "q": "1+1"}, {"a": 4, "q": "2+2"}])
    for wrong in ("text", {"a": 1}, 3, [object()]):
        with pytest.raises(TypeError, match="rows"):
            fingerprint(wrong)
