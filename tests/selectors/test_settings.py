"""Settings of every public selector: what is no number of the right kind is refused by name."""

import inspect

import numpy as np
import pytest

from dpsjax import selectors

# Arguments without a default.
NEEDED = {
    "difficulty": np.arange(6, dtype=np.float32),
    "category": np.arange(6, dtype=np.int32) % 2,
    "num_categories": 2,
    "size": 3,
    "source": np.arange(6, dtype=np.int32) % 2,
    "shares": (1, 1),
    "steps": 2,
    "after": 2,
    "of": selectors.pass_rate,
    "inner": selectors.uniform(),
    "other": selectors.uniform(),
}
# Infinity is the default: prompts that were never seen come first.
INFINITE = {("track_explorability", "unseen")}


def factories():
    """Public functions that make a selector out of settings, with their numeric settings."""
    for name in selectors.__all__:
        made = getattr(selectors, name)
        if inspect.isclass(made):
            continue
        signature = inspect.signature(made)
        if signature.return_annotation is not selectors.Selector or set(signature.parameters) & {
            "state",
            "parts",
            "propose",
            "before",
        }:
            continue
        needed = {k: NEEDED[k] for k, p in signature.parameters.items() if p.default is p.empty}
        for argument, parameter in signature.parameters.items():
            if type(parameter.default) in (int, float):
                yield name, argument, type(parameter.default), needed


CASES = list(factories())
NAMES = [f"{name}-{argument}" for name, argument, *_ in CASES]


def test_the_table_is_not_empty():
    assert len(CASES) > 90 and len({name for name, *_ in CASES}) > 40


@pytest.mark.parametrize(("name", "argument", "kind", "needed"), CASES, ids=NAMES)
def test_a_setting_that_is_no_such_number_is_refused_by_name(name, argument, kind, needed):
    make = getattr(selectors, name)
    bad = [-1] if kind is int else [float("nan"), float("inf"), -float("inf")]
    if (name, argument) in INFINITE:
        bad = [float("nan")]
    for value in bad:
        with pytest.raises((ValueError, TypeError)) as caught:
            make(**needed | {argument: value})
        assert argument in str(caught.value) and str(value).strip("-") in str(caught.value)
