"""The vision tower of Qwen2.5-VL, in float64 NumPy, one picture and one patch at a time."""

import math

import numpy as np


def patches(picture, patch, merge):
    """Of ``[H, W, C]``: list of (row, column, ``[C, patch, patch]``), merged ones side by side."""
    found = []
    rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
    for top in range(0, rows, merge):
        for left in range(0, columns, merge):
            for row in range(top, top + merge):
                for column in range(left, left + merge):
                    part = picture[row * patch :, column * patch :][:patch, :patch]
                    found.append((row, column, np.moveaxis(part, -1, 0)))
    return found


def rms_norm(x, scale, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * scale


def rotate(x, row, column):
    """Pairs (i, i + h/2): the first half of them turn with the row, the others with the column."""
    half, out = len(x) // 2, np.empty_like(x)
    pairs = half // 2
    for i in range(half):
        place, power = (row, i) if i < pairs else (column, i - pairs)
        angle = place * 10_000.0 ** (-power / pairs)
        out[i] = x[i] * np.cos(angle) - x[half + i] * np.sin(angle)
        out[half + i] = x[half + i] * np.cos(angle) + x[i] * np.sin(angle)
    return out


def _layer(xs, places, w, full, config):
    eps, heads = config["norm_eps"], w["out_nhd"].shape[0]
    side = config["window"] // config["patch"]
    normed = [rms_norm(x, w["attention_norm_d"], eps) for x in xs]
    made = [np.einsum("d,dcnh->cnh", x, w["qkv_dcnh"]) + w["qkv_bias_cnh"] for x in normed]
    out = []
    for i, (row, column) in enumerate(places):
        total = w["out_bias_d"].astype(float)
        seen = [
            j
            for j, (r, c) in enumerate(places)
            if full or (r // side, c // side) == (row // side, column // side)
        ]
        for n in range(heads):
            query = rotate(made[i][0, n], row, column) / math.sqrt(made[i].shape[-1])
            scores = np.array([query @ rotate(made[j][1, n], *places[j]) for j in seen])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed = sum(weight * made[j][2, n] for weight, j in zip(weights, seen, strict=True))
            total = total + mixed @ w["out_nhd"][n]
        x = xs[i] + total
        z = rms_norm(x, w["mlp_norm_d"], eps)
        gate = z @ w["gate_df"] + w["gate_bias_f"]
        hidden = gate / (1 + np.exp(-gate)) * (z @ w["up_df"] + w["up_bias_f"])
        out.append(x + hidden @ w["down_fd"] + w["down_bias_d"])
    return out


def embeddings(picture, params, config):
    """What a picture ``[H, W, C]`` of bytes is to the text: ``[tokens, D]``."""
    scaled = (picture / 255 - np.array(config["mean"])) / np.array(config["std"])
    found = patches(scaled, config["patch"], config["merge"])
    places = [(row, column) for row, column, _ in found]
    weight = params["patch_ctpqd"]
    xs = [
        sum(np.einsum("cpq,cpqd->d", part, weight[:, t]) for t in range(weight.shape[1]))
        for _, _, part in found
    ]
    for i in range(config["layers"]):
        w = {name: value[i] for name, value in params["layers"].items()}
        xs = _layer(xs, places, w, i in config["full_layers"], config)
    xs = [rms_norm(x, params["merge_norm_d"], config["norm_eps"]) for x in xs]
    together, tokens = config["merge"] ** 2, []
    for i in range(0, len(xs), together):
        hidden = np.concatenate(xs[i : i + together]) @ params["merge_up_aw"]
        hidden = hidden + params["merge_up_bias_w"]
        hidden = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in hidden])
        tokens.append(hidden @ params["merge_down_wo"] + params["merge_down_bias_o"])
    return np.array(tokens)
