"""Settings of every public selector: what is no number of the right kind is refused by name."""

import ast
import inspect
from pathlib import Path

import pytest

from dpsjax import selectors

# Arguments without a default.
NEEDED = {
    "size": 3,
    "shares": (1, 1),
    "steps": 2,
    "after": 2,
    "of": selectors.pass_rate,
    "other": selectors.uniform(),
    "inner": selectors.uniform(),
    "selector": selectors.uniform(),
    "split": lambda rate, budget: rate,
    "num_categories": 3,
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
            "filter",
            "score",
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


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: selectors.mopps(decay=1.5), "decay must lie in"),
        (lambda: selectors.mopps(prior=(0.0, 1.0)), "prior must be positive"),
        (lambda: selectors.mopps(target=50), "target must be finite and lie in"),
        (lambda: selectors.mopps(band=(0.7, 0.3)), "band=.* must be"),
        (lambda: selectors.mopps(band=(0.3, 1.7)), "band must be finite and lie in"),
        (lambda: selectors.beta_mean(target=-0.1), "target must be"),
        (lambda: selectors.variance_ema(decay=-0.1), "decay must be"),
        (lambda: selectors.gcs(width=0), "width must be positive"),
        (lambda: selectors.gcs(target=50), "target must be"),
        (lambda: selectors.insight(target=2), "target must be"),
        (lambda: selectors.insight(sharpness=-1.0), "sharpness must be"),
        (lambda: selectors.cures(temperature=0.0), "temperature must be positive"),
        (lambda: selectors.sec(temperature=0.0), "temperature must be positive"),
        (lambda: selectors.sec(rate=1.5), "rate must be"),
        (lambda: selectors.arcus(temperature=-1.0), "temperature must be"),
        (lambda: selectors.arcus(target=1.6), "target must be"),
        (lambda: selectors.arcus(target=0), "target must lie in"),
        (lambda: selectors.arcus(rate=2.0), "rate must be"),
        (lambda: selectors.kgps(process_noise=-1.0), "process_noise must be"),
        (lambda: selectors.kgps(points=4), "points=4 must be an odd number"),
        (lambda: selectors.greso(start=1.5), "start must be"),
        (lambda: selectors.greso(target=-0.1), "target must be"),
        (lambda: selectors.adarft(wanted=50), "wanted must be"),
        (lambda: selectors.vcrl(threshold=1.1), "threshold must be"),
        (lambda: selectors.vcrl(bank=2.0), "bank must be"),
        (lambda: selectors.depo(explore=1.5), "explore must be"),
        (lambda: selectors.depo(history=0), "history=0 must be"),
        (lambda: selectors.lppo(slope=-1.0), "slope must be"),
        (lambda: selectors.learning_progress(explore=-1.0), "explore must be"),
        (lambda: selectors.prioritized_replay(temperature=0), "temperature must be positive"),
        (lambda: selectors.prioritized_replay(staleness=1.5), "staleness must be"),
        (lambda: selectors.history_resampling(epoch_steps=0), "epoch_steps=0 must be"),
        (lambda: selectors.mapp(group=1), "group=1 must be at least 2"),
        (lambda: selectors.cool_down(-1), "steps must be"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def defaults(path):
    """``(keyword, literal) -> functions`` of a file; None, booleans, 0 and 1 say nothing."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            named = [*node.args.posonlyargs, *node.args.args]
            given = zip(reversed(named), reversed(node.args.defaults), strict=False)
            alone = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            for argument, value in [*given, *alone]:
                if isinstance(value, ast.Constant) and value.value not in (None, 0, 1, ""):
                    found.setdefault((argument.arg, value.value), []).append(node.name)
    return found


@pytest.mark.parametrize(
    "path",
    [*Path(selectors.__file__).parent.glob("**/*.py")],
    ids=lambda path: path.stem,
)
def test_a_recipe_and_its_parts_have_one_default(path):
    twice = {key: names for key, names in defaults(path).items() if len(names) > 1}
    shared = {("target", 0.5), ("fraction", 0.1), ("decay", 0.5)}  # of parts and recipes apart
    assert not {key: names for key, names in twice.items() if key not in shared}
