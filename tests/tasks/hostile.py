"""Measures, without the tests' run-time type checks, what a training run would see.

Run as ``python -m tests.tasks.hostile``; prints one line of JSON.
"""

import json
import random
import sys
import threading
import time
from collections import Counter

from dpsjax.tasks.countdown import countdown
from dpsjax.tasks.expression import evaluate

COUNT = 100_000


def texts(rng, count):
    """Random and hostile responses."""
    alphabet = "0123456789+-*/() =:"
    for _ in range(count):
        kind = rng.randrange(8)
        if kind < 4:
            yield "".join(rng.choices(alphabet, k=rng.randint(0, 24)))
        elif kind == 4:
            yield "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 30)))
        elif kind == 5:
            yield rng.choice("(-)9/*") * rng.randint(0, 5000)
        elif kind == 6:
            yield "*".join(str(rng.randrange(10**9)) for _ in range(25))
        else:
            yield "/".join(f"({rng.randrange(10**9)}-1/3)" for _ in range(14))


def value_in_a_small_stack():
    """The value of the deepest text allowed, where only 150 frames are left."""
    limit = sys.getrecursionlimit()
    results = []
    text = "(" * 32 + "7" + ")" * 32
    thread = threading.Thread(target=lambda: results.append(int(evaluate(text).value)))
    sys.setrecursionlimit(150)
    thread.start()
    thread.join()
    sys.setrecursionlimit(limit)
    return results[0]


def measure():
    start = time.process_time()
    task = countdown()
    generation = time.process_time() - start
    problems = [task.train[index % len(task.train)] for index in range(COUNT)]
    responses = list(texts(random.Random(0), COUNT))
    start = time.process_time()
    scores = task.score(problems, responses)
    return {
        "generation_seconds": generation,
        "scoring_seconds": time.process_time() - start,
        "value_in_a_small_stack": value_in_a_small_stack(),
        "scores": len(scores),
        "consistent": all(s.correct == (s.reason == "") == (s.reward == 1.0) for s in scores),
        "reasons": Counter(score.reason.split(" at ")[0].split(" value ")[0] for score in scores),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
