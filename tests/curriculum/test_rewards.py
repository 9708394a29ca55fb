"""Rewards of every kind are the same rewards."""

import numpy as np
import pytest

from dpsjax.host.rewards import flat_rows, numbers, rows_of_batch

WANTED = [1.0, 0.0, np.nan, 1.0]


@pytest.mark.parametrize(
    "rewards",
    [
        [1, 0, None, 1],
        [True, False, None, True],
        (1.0, 0.0, float("nan"), 1.0),
        np.array(WANTED),
        np.array(WANTED, np.float16),
        [np.float32(1), np.int64(0), None, np.bool_(True)],
        np.array([1, 0, None, 1], object),
    ],
)
def test_kinds(rewards):
    ids, values = flat_rows([3, 2, 1, 0], rewards, 4)
    np.testing.assert_array_equal(values, WANTED)
    assert ids.tolist() == [3, 2, 1, 0]
    assert values.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int64", "bool"])
def test_tensors_of_torch(dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rewards = torch.tensor([1, 0, 1, 1]).to(getattr(torch, dtype))
    if dtype.endswith(("32", "16")):
        rewards.requires_grad_()
    ids, values = flat_rows(torch.tensor([3, 2, 1, 0]), rewards, 4)
    assert values.tolist() == [1, 0, 1, 1]
    assert ids.tolist() == [3, 2, 1, 0]
    assert numbers([torch.tensor(1.0), None, torch.tensor(0.0)])[0][[0, 2]].tolist() == [1, 0]
    assert numbers([rewards[:3].detach(), rewards[3:].detach()])[1].tolist() == [3, 1]


def test_groups_and_groups_of_unequal_size():
    ids, values = flat_rows([5, 7], [[1, None], [0, 1]], 8)
    assert ids.tolist() == [5, 5, 7, 7]
    np.testing.assert_array_equal(values, [1, np.nan, 0, 1])
    ids, values = flat_rows([5, 7, -1], [[1, 0, 1], [], [1]], 8)
    assert (ids.tolist(), values.tolist()) == ([5, 5, 5], [1, 0, 1])


def test_a_whole_batch_in_its_order():
    index = np.array([5, 7], np.int32)
    for rewards in ([1, 0, 0, 1], [[1, 0], [0, 1]]):
        ids, values = rows_of_batch(index, rewards)
        assert (ids.tolist(), values.tolist()) == ([5, 5, 7, 7], [1, 0, 0, 1])
