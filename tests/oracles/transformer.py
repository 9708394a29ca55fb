"""The transformer's forward pass, in float64 NumPy loops over tokens and heads."""

import numpy as np


def rms_norm(x, scale, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * scale


def frequency(i, rope, head_dim):
    """Angle per position of pair i, following the published llama3 and linear scalings."""
    base = rope["theta"] ** (-2.0 * i / head_dim)
    if rope["scaling"] == "linear":
        return base / rope["factor"]
    if rope["scaling"] == "llama3":
        wavelength = 2 * np.pi / base
        if wavelength > rope["original_positions"] / rope["low_frequency"]:
            return base / rope["factor"]
        if wavelength < rope["original_positions"] / rope["high_frequency"]:
            return base
        smooth = rope["original_positions"] / wavelength - rope["low_frequency"]
        smooth /= rope["high_frequency"] - rope["low_frequency"]
        return (1 - smooth) * base / rope["factor"] + smooth * base
    return base


def rotate(x, position, rope):
    half = len(x) // 2
    out = np.empty_like(x)
    for i in range(half):
        angle = position * frequency(i, rope, len(x))
        c, s = np.cos(angle), np.sin(angle)
        out[i] = x[i] * c - x[half + i] * s
        out[half + i] = x[half + i] * c + x[i] * s
    return out


def heads(x, weight, bias):
    """[D] times [D, heads, h] plus [heads, h]."""
    return np.array([x @ weight[:, n] + bias[n] for n in range(weight.shape[1])])


def attention(xs, positions, weights, config):
    """Causal attention of one sequence of normed states, a list of [D]."""
    n, m, h = config["heads"], config["kv_heads"], config["head_dim"]
    rope, eps = config["rope"], config["norm_eps"]
    queries, keys, values = [], [], []
    for x, position in zip(xs, positions, strict=True):
        q = heads(x, weights["query_dnh"], weights.get("query_bias_nh", np.zeros((n, h))))
        k = heads(x, weights["key_dmh"], weights.get("key_bias_mh", np.zeros((m, h))))
        v = heads(x, weights["value_dmh"], weights.get("value_bias_mh", np.zeros((m, h))))
        if config["qk_norm"]:
            q = np.array([rms_norm(row, weights["query_norm_h"], eps) for row in q])
            k = np.array([rms_norm(row, weights["key_norm_h"], eps) for row in k])
        queries.append(np.array([rotate(row, position, rope) for row in q]))
        keys.append(np.array([rotate(row, position, rope) for row in k]))
        values.append(v)
    outputs = []
    for t in range(len(xs)):
        out = np.zeros(config["width"])
        for head in range(n):
            group = head // (n // m)
            scores = np.array([queries[t][head] @ keys[j][group] for j in range(t + 1)])
            scores = np.exp((scores - scores.max()) / np.sqrt(h))
            scores /= scores.sum()
            mixed = sum(scores[j] * values[j][group] for j in range(t + 1))
            out += mixed @ weights["out_nhd"][head]
        outputs.append(out)
    return outputs


def forward(params, config, tokens):
    """Logits [T, V] of one unpadded sequence.

    Args:
        params: {"embed_vd", "norm_d", "head_dv"?, "layers": {name: [L, ...]}}.
        config: plain dict of the architecture.
        tokens: sequence of int.
    """
    layers = {k: np.asarray(v, np.float64) for k, v in params["layers"].items()}
    embed = np.asarray(params["embed_vd"], np.float64)
    eps = config["norm_eps"]
    xs = [embed[token] for token in tokens]
    positions = list(range(len(tokens)))
    for i in range(config["layers"]):
        w = {k: v[i] for k, v in layers.items()}
        normed = [rms_norm(x, w["attention_norm_d"], eps) for x in xs]
        mixed = attention(normed, positions, w, config)
        xs = [x + y for x, y in zip(xs, mixed, strict=True)]
        for t, x in enumerate(xs):
            z = rms_norm(x, w["mlp_norm_d"], eps)
            gate = z @ w["gate_df"]
            xs[t] = x + (gate / (1 + np.exp(-gate)) * (z @ w["up_df"])) @ w["down_fd"]
    head = np.asarray(params["head_dv"], np.float64) if "head_dv" in params else embed.T
    final = [rms_norm(x, np.asarray(params["norm_d"], np.float64), eps) for x in xs]
    return np.array([x @ head for x in final])


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def truncated_probs(logits, temperature, top_k, top_p):
    """Distribution after temperature, then top-k, then top-p, one token at a time."""
    logits = np.asarray(logits, np.float64) / temperature
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    if top_k:
        order = order[:top_k]
    weight = {i: np.exp(logits[i] - logits.max()) for i in order}
    total = sum(weight.values())
    kept, mass = [], 0.0
    for i in order:
        if mass >= top_p:
            break
        kept.append(i)
        mass += weight[i] / total
    probs = np.zeros(len(logits))
    for i in kept:
        probs[i] = weight[i]
    return probs / probs.sum()
