"""Slow float64 truth for advantages and the GRPO loss: plain loops, one token at a time."""

import math

import numpy as np


def advantages(rewards, valid, kind, epsilon=1e-6):
    """Advantages [B, G] and informative [B]; kind is normalized, centered or leave_one_out."""
    groups, size = np.shape(rewards)
    values = np.zeros((groups, size))
    informative = np.zeros(groups, dtype=bool)
    for b in range(groups):
        kept = [g for g in range(size) if valid[b][g]]
        if len({float(rewards[b][g]) for g in kept}) < 2:
            continue
        informative[b] = True
        for g in kept:
            reward = float(rewards[b][g])
            all_of_them = [float(rewards[b][h]) for h in kept]
            others = [float(rewards[b][h]) for h in kept if h != g]
            if kind == "normalized":
                mean = np.mean(all_of_them)
                values[b, g] = (reward - mean) / (np.std(all_of_them, ddof=1) + epsilon)
            elif kind == "centered":
                values[b, g] = reward - np.mean(all_of_them)
            else:
                values[b, g] = reward - np.mean(others)
    return values, informative


def token_weights(mask, counted, kind):
    """Weight of each token [S, T]; kind is token_mean, sequence_mean or constant_length."""
    sequences, length = np.shape(mask)
    lengths = [sum(bool(m) for m in row) for row in mask]
    counted_tokens = sum(lengths[s] for s in range(sequences) if counted[s])
    counted_sequences = sum(1 for s in range(sequences) if counted[s] and lengths[s] > 0)
    weights = np.zeros((sequences, length))
    for s in range(sequences):
        for t in range(length):
            if not mask[s][t]:
                continue
            if kind == "token_mean":
                weights[s, t] = 1.0 / counted_tokens
            elif kind == "sequence_mean":
                weights[s, t] = 1.0 / lengths[s] / counted_sequences
            else:
                weights[s, t] = 1.0 / (length * counted_sequences)
    return weights


def token_loss(new, old, advantage, clip_low, clip_high, dual_clip):
    """Clipped surrogate of one token."""
    ratio = math.exp(new - old)
    if advantage >= 0:
        return -advantage * min(ratio, 1.0 + clip_high)
    bounded = max(ratio, 1.0 - clip_low)
    if dual_clip is not None:
        bounded = min(bounded, dual_clip)
    return -advantage * bounded


def loss(
    new,
    old,
    sampler,
    advantage,
    mask,
    weights,
    *,
    entropy=None,
    reference=None,
    clip_low=0.2,
    clip_high=0.28,
    dual_clip=10.0,
    entropy_coefficient=0.0,
    kl_coefficient=0.0,
    kl_kind="k3",
    cap=None,
):
    """The weighted sum over tokens."""
    total = 0.0
    for s in range(np.shape(new)[0]):
        for t in range(np.shape(new)[1]):
            if not mask[s][t]:
                continue
            value = token_loss(new[s][t], old[s][t], advantage[s], clip_low, clip_high, dual_clip)
            if cap is not None:
                value *= min(math.exp(old[s][t] - sampler[s][t]), cap)
            if kl_coefficient:
                log_ratio = new[s][t] - reference[s][t]
                kl = log_ratio if kl_kind == "k1" else math.exp(-log_ratio) + log_ratio - 1.0
                value += kl_coefficient * kl
            if entropy_coefficient:
                value -= entropy_coefficient * entropy[s][t]
            total += weights[s][t] * value
    return total


def gradient(function, point, step=1e-6):
    """Central finite differences of a scalar function of one array."""
    point = np.array(point, dtype=np.float64)
    result = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        up, down = point.copy(), point.copy()
        up[index] += step
        down[index] -= step
        result[index] = (function(up) - function(down)) / (2 * step)
    return result
