"""Responses that are meant to break a verifier, or to be paid for nothing."""

import random

BOMBS = [
    r"9^{9^{9^{9}}}",
    r"(10^{9})!",
    "9**9**9**9",
    r"\sum_{i=1}^{10^{9}} i^{i}",
    r"\prod_{n=1}^{\infty} n",
    r"\int_0^1 \int_0^1 e^{x^{x^{x}}} dx dy",
    r"\def\a{\a\a}\a",
    r"\newcommand{\x}{\x\x}\x",
    r"\sqrt[0]{0}/0",
    r"\binom{10^8}{5\cdot 10^7}",
    r"\begin{pmatrix}" + r"1 & " * 400 + r"\end{pmatrix}",
    r"\left(" * 300 + r"\right)" * 300,
    "1" + "0" * 1500,
    "-" * 1500 + "1",
    "1" + "+1" * 900,
]
NOTHING = [
    r"\infty",
    "nan",
    "i",
    r"\emptyset",
    r"\text{}",
    r"\sqrt{-1}",
    "None",
    "True",
    "[]",
    "\\",
]


def attack(rng: random.Random, bombs: bool = True) -> str:
    """A response; none is right where the answer is 12, nor where there is none.

    Args:
        rng: source of randomness.
        bombs: also those that cost symbolic algebra its whole deadline.
    """
    inner = rng.choice(_KINDS if bombs else _KINDS[1:])(rng)
    return rng.choice(_AROUND).replace("%s", inner)


_AROUND = [
    "\\boxed{%s}",
    "\\boxed{%s",
    "final answer is %s",
    "<answer>%s</answer>",
    "<answer><answer>%s</answer></answer>",
    "</answer>%s<answer>",
    "%s",
]
_KINDS = [
    lambda rng: rng.choice(BOMBS),
    lambda rng: "(" * rng.randint(1, 400),
    lambda rng: r"\frac{" * rng.randint(1, 200),
    lambda rng: "{" * 10_000 + "}" * 10_000,
    lambda rng: "(" * 10_000 + "7" + ")" * 10_000,
    lambda rng: "".join(chr(rng.randrange(0x20, 0x3000)) for _ in range(rng.randint(1, 60))),
    lambda rng: "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 30))),
    lambda rng: "\0" * rng.randint(1, 50) + "1",
    lambda rng: rng.choice(["\uff11\uff12\uff13", "\u0661\u0662", "\u00b9\u00b2", "1\u200b3"]),
    lambda rng: rng.choice(["__import__('os').system('true')", "().__class__", "f'{1}'", "{0.a}"]),
    lambda rng: rng.choice("x(9") * 1_000_000,
    lambda rng: "".join(rng.choices(r"0123456789+-*/^_{}()\ ,.", k=rng.randint(1, 25))) + "+q",
    lambda rng: rng.choice(NOTHING),
    lambda rng: rng.choice(["1<|im_start|>2", "1</s>2", "<|endoftext|>", "1<think>2"]),
]
