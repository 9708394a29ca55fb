"""Folders of runs that never were, of any size."""

import json

import numpy as np

from dpsjax.report.pool_file import write_pool
from dpsjax.tasks.base import Problem

GROUP = 4
# Nothing that a policy or a file of data may hold can become a part of the page.
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "]]> ${data} $policy \u2028 &lt;b&gt; \0 \u202e",
    "\ud800 alone",
)


def write_run(folder, prompts=12, steps=6, batch=4, seed=0):
    """A run with passes that are drawn; returns its records."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records, visited = [], set()
    for step in range(1, steps + 1):
        prompt = draw.permutation(prompts)[:batch]
        passes = draw.binomial(GROUP, (prompt % 5) / 4)
        state = np.where(passes == 0, 0, np.where(passes == GROUP, 2, 1))
        visited |= set(prompt.tolist())
        mixed = draw.uniform(0.1, 0.9, batch)
        records.append(
            {
                **{"step": step, "rollouts": step * batch * GROUP, "reward": 0.5},
                **{"accuracy": float(passes.mean() / GROUP), "brier": 0.2, "entropy": 1.5},
                "effective_ratio": float((state == 1).mean()),
                **{"all_wrong": int((state == 0).sum()), "all_right": int((state == 2).sum())},
                **{"coverage": len(visited), "occupancy": [0.3, 0.4, 0.3], "kl": None},
                "groups": {
                    **{"prompt": prompt.tolist(), "passes": passes.tolist()},
                    **{"trials": [GROUP] * batch, "length": [7.5] * batch},
                    "state": state.tolist(),
                    "predicted": [(0.7 * (1 - mixed)).tolist(), mixed.tolist()],
                },
                "seconds": {"step": 0.25},
            }
        )
        records[-1]["groups"]["predicted"].append((0.3 * (1 - mixed)).tolist())
    before = {"held_out_before_accuracy": 0.2, "held_out_before_greedy": 0.25}
    records[0] |= before | {"held_out_before_by_temperature": {"0.5": 0.22}}
    records[-1] |= {"held_out_accuracy": 0.5, "held_out_greedy": 0.625, "held_out_by_source": {}}
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    write_responses(folder / "responses.jsonl", records)
    problems = [
        Problem(f"What is {n}?", n, f"source {n % 3}", id=f"id-{n}") for n in range(prompts - 1)
    ]
    write_pool(folder, [*problems, Problem(HOSTILE[0], 0, HOSTILE[1], id=HOSTILE[2])])
    return records


def write_responses(path, records):
    """Two responses a step, and one of a held-out problem in the end; hostile ones."""
    rows = []
    for record in records:
        prompt = record["groups"]["prompt"][0]
        for place in range(2):
            text = f"{HOSTILE[(record['step'] + place) % len(HOSTILE)]} so <answer>{place}</answer>"
            rows.append(
                {"step": record["step"], "split": "train", "prompt": prompt, "source": "s"}
                | {"question": "?", "response": text, "tokens": 9, "truncated": place == 1}
                | {"reward": 1.0 - place, "correct": place == 0, "answer": str(place)}
                | {"reason": "" if place == 0 else HOSTILE[1]}
            )
    rows.append(rows[-1] | {"split": "held-out", "prompt": 3, "question": "held?", "correct": None})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
