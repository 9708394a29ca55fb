"""Splits are for ever; quotas are exact."""

from collections import Counter

from dpsjax.tasks.shares import quotas, split_of


def test_a_split_is_that_of_its_name_for_ever():
    assert [split_of(name, 4, 8) for name in ("a", "b", "c", "d")] == [
        "train",
        "warm",
        "warm",
        "train",
    ]
    found = Counter(split_of(str(number), 4, 8) for number in range(16_000))
    for split, share in (("test", 4), ("train", 8), ("warm", 4)):
        assert abs(found[split] - 1000 * share) < 5 * (16_000 * 0.25) ** 0.5


def test_quotas_sum_up_and_are_never_off_by_one():
    for count in range(30):
        for weights in ([1], [1, 1, 1], [0.35, 0.15, 0.15, 0.35], [0, 2]):
            found = quotas(count, weights)
            assert sum(found) == count
            shares = [count * weight / sum(weights) for weight in weights]
            assert all(abs(n - share) < 1 for n, share in zip(found, shares, strict=True))
