"""The item-response student and the measures of a run, as float64 loops."""

import math

import numpy as np


def solve_rate(params, state, step):
    """p of every row; `state` holds difficulty, own, shift, gate, topic, ability."""
    out = []
    for i in range(len(state["difficulty"])):
        logit = state["difficulty"][i] + state["own"][i] + state["ability"][state["topic"][i]]
        if step >= params["shift_step"]:
            logit += state["shift"][i]
        if np.mean(state["ability"]) < state["gate"][i]:
            logit = -8.0
        out.append(1 / (1 + math.exp(-logit)))
    return np.array(out)


def verdict(params, p):
    return p * (1 - params["false_fail"]) + (1 - p) * params["false_pass"]


def learn(params, state, step, index, passes, trials, weight):
    """One update, in place."""
    rate = solve_rate(params, state, step)
    size, topics = len(index), len(state["ability"])
    teach, shared = np.zeros(size), np.zeros(size)
    for b in range(size):
        i = index[b]
        if i < 0 or trials[b] == 0:
            continue
        spread = math.sqrt(passes[b] * (trials[b] - passes[b]))
        teach[b] = weight[b] * 2 * spread / trials[b]
        p, q = rate[i], verdict(params, rate[i])
        honest = 1 - params["false_pass"] - params["false_fail"]
        teach[b] *= honest * p * (1 - p) / (q * (1 - q))
        shared[b] = teach[b] * math.exp(-params["repetition"] * state["dose"][i])
        shared[b] *= params["shared_gain"] / size
    kept = 1 - params["forgetting"] * min(max(teach.sum() / size, 0), 1)
    state["own"] *= kept
    state["ability"] *= kept
    for b in range(size):
        if index[b] >= 0:
            state["own"][index[b]] += params["own_gain"] * teach[b]
            state["dose"][index[b]] += teach[b]
    for c in range(topics):
        mine = sum(shared[b] for b in range(size) if state["topic"][index[b]] == c)
        share = params["topic_share"]
        state["ability"][c] += (1 - share) * shared.sum() + share * topics * mine


def outcome(q, group):
    return np.array([(1 - q) ** group, 1 - (1 - q) ** group - q**group, q**group])


def calibration(predicted, truth, bins=10):
    """Brier, log loss, confusion and reliability bins, summed over prompts."""
    brier = log_loss = 0.0
    confusion, table = np.zeros((3, 3)), np.zeros((3, bins))
    for n in range(predicted.shape[1]):
        q, v = predicted[1, n], truth[1, n]
        for event, chance in ((1, v), (0, 1 - v)):  # partly solved, or not
            brier += chance * (q - event) ** 2
            likely = max(q if event else 1 - q, 1e-6)
            log_loss -= chance * math.log(likely)
        best = [k for k in range(3) if predicted[k, n] >= predicted[:, n].max() - 1e-6]
        for k in best:
            confusion[k] += truth[:, n] / len(best)
        place = min(int(q * bins), bins - 1)
        table[:, place] += [1, q, v]
    return brier, log_loss, confusion, table


def refill(accepted, size, waves):
    """Which (wave, row) each update uses, by a plain queue. `accepted` is [waves, B] bool."""
    queue, waited, updates = [], 0, []
    for wave, row in enumerate(accepted):
        queue += [(wave, b) for b in range(len(row)) if row[b]]
        waited += 1
        if len(queue) >= size or waited >= waves:
            updates.append(queue[:size])
            queue, waited = queue[size:], 0
        else:
            updates.append(None)
    return updates
