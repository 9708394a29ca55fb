"""What the pictures show is computed by functions of their own; these are held to loops."""

import numpy as np
import pytest

from dpsjax.loop.metrics import partial_predictions
from dpsjax.report import plots


def record(step, prompt, state, predicted, **more):
    groups = {"prompt": prompt, "state": state, "predicted": predicted}
    return {"step": step, "rollouts": 8 * step, "occupancy": [1 / 3] * 3, "groups": groups, **more}


RECORDS = [
    record(
        1,
        [0, 3],
        [1, 2],
        [[1 / 3, 0.5], [1 / 3, 0.3], [1 / 3, 0.2]],
        held_out_before_accuracy=0.25,
        held_out_before_greedy=0.375,
    ),
    record(
        2,
        [3, 1],
        [0, -1],
        [[0.2, 0.1], [0.7, 0.8], [0.1, 0.1]],
        held_out_accuracy=0.5,
        held_out_greedy=0.625,
    ),
]


def test_observed_occupancy_is_the_last_state_seen():
    shares = plots.observed_occupancy(RECORDS, 4)
    # after step 1: 0 partial, 3 solved; after step 2: 0 partial, 3 unsolved (1 showed nothing)
    assert shares.T.tolist() == [[0.5, 0, 0.25, 0.25], [0.5, 0.25, 0.25, 0]]


def test_held_out_curve_starts_before_any_rollout():
    assert plots.held_out_curve(RECORDS) == ([0, 16], [0.25, 0.5])
    assert plots.held_out_curve(RECORDS, "greedy") == ([0, 16], [0.375, 0.625])


def test_confusion_counts_each_seen_group_once():
    table = plots.confusion([*RECORDS, *RECORDS, *RECORDS])
    # the undecided prediction gives a third to each row, in the observed column "partial"
    assert table.tolist() == [[0, 1, 3], [3, 1, 0], [0, 1, 0]]


def test_partial_predictions_leave_out_what_showed_nothing():
    probability, partial = partial_predictions(RECORDS)
    assert probability == pytest.approx([1 / 3, 0.3, 0.7])
    assert partial.tolist() == [True, False, False]


def test_calibration_against_a_loop():
    rng = np.random.default_rng(0)
    predicted = np.append(rng.uniform(size=400), 1.0)
    partial = rng.uniform(size=401) < predicted
    mean, rate, error, count = plots.calibration(predicted, partial, bins=4)
    for b in range(4):
        inside = [i for i, p in enumerate(predicted) if min(int(p * 4), 3) == b]
        hits, n = sum(bool(partial[i]) for i in inside), len(inside)
        assert count[b] == n
        assert mean[b] == pytest.approx(sum(predicted[i] for i in inside) / n)
        assert rate[b] == pytest.approx(hits / n)
        # Wilson's bounds are where the score statistic equals 1.96
        for bound in (rate[b] - error[0, b], rate[b] + error[1, b]):
            assert (rate[b] - bound) ** 2 * n / (bound * (1 - bound)) == pytest.approx(1.96**2)
    assert count.sum() == 401


def test_smoothing_keeps_constants_and_length():
    assert plots.smooth([2.0] * 5, 3).tolist() == [2.0] * 5
    values = np.random.default_rng(1).normal(size=7)
    expected = [values[max(i - 2, 0) : i + 3].mean() for i in range(7)]
    assert np.allclose(plots.smooth(values.tolist(), 5), expected)


def test_every_picture_can_be_drawn_where_nothing_was_ever_scored(tmp_path):
    unseen = [
        record(
            step,
            [0, 3],
            [-1, -1],
            [[1 / 3] * 2] * 3,
            accuracy=float("nan"),
            effective_ratio=0.0,
            all_wrong=0,
            all_right=0,
        )
        for step in (1, 2)
    ]
    written = plots.write_plots(tmp_path, unseen, "nothing scored", 4)
    assert len(written) == 6 and all(path.stat().st_size > 0 for path in written)
