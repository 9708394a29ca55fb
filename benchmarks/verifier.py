r"""The verifier of mathematics on real references: what it takes, what it refuses, how fast it is.

``python benchmarks/verifier.py --data FOLDER`` with the files ``train_math.json``,
``test_math.json``, ``test_aime.json``, ``test_amc.json``, ``test_minerva.json`` and
``test_olympiad_bench.json`` (any that are there) grades, in workers as a run does,

- every reference answer against itself, in ``\boxed{}`` at the end of a solution;
- every reference against a perturbed one, another digit or a sum with one, which must be wrong;
- the references written in other ways that mean the same (a sample of each way);
- pairs of equal forms written by hand, by kind: the share refused is the false-negative rate;
- the same responses with one worker and with two, for the throughput.
"""

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common import save

from dpsjax.tasks.base import LostScores, Problem, Score
from dpsjax.tasks.data.columns import Columns, problems_of
from dpsjax.tasks.math import references, score
from dpsjax.tasks.workers import ScoringWorkers

FILES = ("train_math", "test_math", "test_aime", "test_amc", "test_minerva", "test_olympiad_bench")
DEADLINE = 10.0  # of a response, as `dpsjax train math` has it

# (reference, the same in another form), by kind.
EQUAL: dict[str, tuple[tuple[str, str], ...]] = {
    "fractions": (
        (r"\frac{1}{2}", "1/2"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{14}{3}", r"\dfrac{14}{3}"),
        (r"\frac{14}{3}", r"4\frac{2}{3}"),
        (r"\frac{14}{3}", "14/3"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac{3}{4}", r"\frac{6}{8}"),
        (r"-\frac{2}{3}", r"\frac{-2}{3}"),
        (r"-\frac{2}{3}", "-2/3"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        ("0.125", r"\tfrac{1}{8}"),
    ),
    "percent": (
        ("50", r"50\%"),
        (r"50\%", "50"),
        (r"50\%", "0.5"),
        (r"12.5\%", "12.5 percent"),
        ("25", "25 %"),
    ),
    "units": (
        ("5", r"5\text{ cm}"),
        ("5", r"5\ \mathrm{cm}"),
        (r"5\text{ cm}", "5"),
        ("12", r"12 \text{ square inches}"),
        ("36", r"36^\circ"),
        (r"36^\circ", "36"),
        ("90", r"90\text{ degrees}"),
        ("18", r"\$18"),
        ("18.90", r"\$18.9"),
        ("60", r"60\text{ miles per hour}"),
        ("9.6", r"9.6 \mathrm{~m/s}"),
        (r"3\text{ hours}", r"3 \text{ hrs}"),
    ),
    "numbers": (
        ("1000", "1,000"),
        ("1000", r"1{,}000"),
        ("142", "142.0"),
        ("25", "025"),
        (r"8.7 \times 10^{8}", "8.7e8"),
        (r"8.7 \times 10^{8}", r"8.7\cdot 10^8"),
        (r"8.7 \times 10^{8}", "870000000"),
        ("1024", "2^{10}"),
        ("-3", "- 3"),
        ("6", "3!"),
        (r"10_{2}", "10_2"),
    ),
    "roots and powers": (
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        (r"3^{1/2}", r"\sqrt{3}"),
        (r"2^{-1}", r"\frac{1}{2}"),
        (r"\sqrt[3]{2}", "2^{1/3}"),
        (r"e^{2}", r"\exp(2)"),
        (r"2\pi", r"\pi \cdot 2"),
    ),
    "expressions": (
        ("p - q", "-q + p"),
        ("(x+1)^2", "x^2+2x+1"),
        ("2(a+b)", "2a+2b"),
        ("x(x-1)", "x^2-x"),
        (r"\frac{x+1}{2}", r"\frac{1}{2}x+\frac{1}{2}"),
        (r"\sin^2 x", r"1-\cos^2 x"),
        (r"\frac{1}{2 n+2}", r"\frac{1}{2(n+1)}"),
        (r"n\cdot 2^{n}", "2^n n"),
    ),
    "equations": (
        ("5", "x=5"),
        ("x=5", "5"),
        ("y = 2x + 3", "2x+3"),
        ("y = 2x + 3", "y=3+2x"),
        ("x^2+y^2=1", "1 = x^2+y^2"),
        ("x=5", "5=x"),
    ),
    "intervals": (
        ("(1,2]", r"(1, 2]"),
        (r"(-\infty, 3)", r"(-\infty,3)"),
        (r"[0,\infty)", r"[0,+\infty)"),
        (r"(-\infty,-1)\cup(1,\infty)", r"(1,\infty)\cup(-\infty,-1)"),
        (r"\left[\frac{1}{2},1\right]", "[0.5,1]"),
        ("(2,5)", "2<x<5"),
        (r"[2,5]", r"2\le x\le 5"),
        (r"x \in [0,1]", "[0,1]"),
    ),
    "sets and lists": (
        (r"\{1,2\}", r"\{2,1\}"),
        (r"\{1,2\}", "1, 2"),
        ("1,2,3", "3,2,1"),
        ("1,2", r"1 \text{ and } 2"),
        ("1,2", r"\{1,2\}"),
        (r"\pm 2", "2,-2"),
        ("1,-2", "x=1, x=-2"),
        (r"\emptyset", r"\varnothing"),
    ),
    "points": (
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
        ("(1,2,3)", "(1, 2, 3)"),
        ("(0.5,1)", r"\left(\frac12,1\right)"),
    ),
    "matrices": (
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (
            r"\begin{pmatrix} 1/2 & 0 \\ 0 & 1 \end{pmatrix}",
            r"\begin{pmatrix}0.5&0\\0&1\end{pmatrix}",
        ),
        (
            r"\begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \end{pmatrix}",
            r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}",
        ),
        (
            r"\begin{pmatrix} 1 & 2 \end{pmatrix}",
            r"\left(\begin{array}{cc} 1 & 2 \end{array}\right)",
        ),
    ),
    "text": (
        (r"\text{Evelyn}", "Evelyn"),
        ("Evelyn", r"\text{Evelyn}"),
        (r"\text{Evelyn}", r"\textbf{Evelyn}"),
        (r"\text{(E)}", "E"),
        (r"\text{(E)}", "(E)"),
        (r"\text{even}", r"\mathrm{even}"),
        (r"\text{June 20}", "June 20"),
        (r"\text{odd}", "Odd"),
    ),
}

_FRACTION = re.compile(r"\\frac\{(-?\w+)\}\{(\w+)\}")
_WHOLE = re.compile(r"-?\d+")
# Ways to write any reference that do not change what it means.
WAYS: dict[str, Callable[[str], str | None]] = {
    "dollars around it": lambda text: f"${text}$",
    "spaces around signs": lambda text: (
        None if "\\" in text or "_" in text else re.sub(r"([+*/=-])", r" \1 ", text)
    ),
    "\\dfrac": lambda text: text.replace("\\frac", "\\dfrac") if "\\frac" in text else None,
    "a/b": lambda text: _FRACTION.sub(r"\1/\2", text) if _FRACTION.fullmatch(text) else None,
    "twice over twice": lambda text: (
        f"\\frac{{2\\cdot {match[1]}}}{{2\\cdot {match[2]}}}"
        if (match := _FRACTION.fullmatch(text)) and match[1].lstrip("-").isdigit()
        else None
    ),
    "n.0": lambda text: f"{text}.0" if _WHOLE.fullmatch(text) else None,
    "x = n": lambda text: f"x = {text}" if _WHOLE.fullmatch(text) else None,
    "n units": lambda text: f"{text}\\text{{ units}}" if _WHOLE.fullmatch(text) else None,
    "1,000": lambda text: (
        f"{int(text):,}" if _WHOLE.fullmatch(text) and abs(int(text)) > 999 else None
    ),
    "plus 0": lambda text: f"{text}+0" if _WHOLE.fullmatch(text) else None,
    "without \\left": lambda text: (
        text.replace("\\left", "").replace("\\right", "") if "\\left" in text else None
    ),
    "bmatrix": lambda text: text.replace("pmatrix", "bmatrix") if "pmatrix" in text else None,
}


class Pair(NamedTuple):
    """A reference, and what a policy wrote."""

    reference: str
    answer: str
    name: str


def perturbed(reference: str) -> str:
    """Another answer of the same form: its last digit one more, else a sum with one."""
    places = [match.start() for match in re.finditer(r"\d", reference)]
    if not places:
        return f"{reference}+1"
    last = places[-1]
    return f"{reference[:last]}{(int(reference[last]) + 1) % 10}{reference[last + 1 :]}"


def response(answer: str) -> str:
    """A solution of a few hundred characters that ends in an answer."""
    steps = "We set up the equation and simplify: $2x + 3 = 7$, so that $x = 2$ follows. " * 6
    return f"{steps}\nTherefore the answer is $\\boxed{{{answer}}}$."


def judged(pairs: list[Pair], workers: ScoringWorkers) -> list[Score | None]:
    """Verdicts; None where a response cost its deadline."""
    problems = [Problem("", {"references": [pair.reference]}, "", pair.name) for pair in pairs]
    try:
        return list(workers(problems, [response(pair.answer) for pair in pairs]))
    except LostScores as lost:
        return list(lost.scores)


def share(pairs: list[Pair], found: list[Score | None], wanted: bool) -> dict:
    """How many verdicts are as wanted, and all that are not, by name."""
    other = [
        {
            "name": pair.name,
            "reference": pair.reference,
            "answer": pair.answer,
            "reason": "no verdict" if verdict is None else verdict.reason,
        }
        for pair, verdict in zip(pairs, found, strict=True)
        if verdict is None or verdict.correct != wanted
    ]
    return {"pairs": len(pairs), "otherwise": len(other), "exceptions": other[:60]}


def ways(files: dict[str, list[Pair]], sample: int) -> dict[str, list[Pair]]:
    """References written in each of the ways, a sample of each file."""
    made: dict[str, list[Pair]] = {name: [] for name in WAYS}
    for pairs in files.values():
        shuffled = random.Random(0).sample(pairs, len(pairs))
        for name, way in WAYS.items():
            forms = ((p, way(p.reference)) for p in shuffled)
            fit = (Pair(p.reference, form, p.name) for p, form in forms if form is not None)
            made[name] += [pair for _, pair in zip(range(sample), fit, strict=False)]
    return made


def throughput(pairs: list[Pair], count: int) -> dict[str, float]:
    """Responses a second by number of workers, which have started before."""
    found = {}
    for workers in (1, 2):
        pool = ScoringWorkers(score, workers, DEADLINE, one_by_one=True)
        judged(pairs[: 8 * workers], pool)
        start = time.perf_counter()
        judged(pairs[:count], pool)
        found[str(workers)] = round(count / (time.perf_counter() - start), 1)
        pool.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the files named above")
    parser.add_argument("--limit", type=int, default=None, help="rows of each file")
    parser.add_argument("--sample", type=int, default=60, help="references a file for each way")
    parser.add_argument("--count", type=int, default=1000, help="responses for the throughput")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    files = {}
    for name in FILES:
        if (path := options.data / f"{name}.json").exists():
            rows = problems_of([path], Columns())[: options.limit]
            given = [(row.answer["answer"], row.id) for row in rows]
            files[name] = [
                Pair(text, text, row)
                for answer, row in given
                if answer is not None
                for text in references(answer)
            ]
    workers = ScoringWorkers(score, 2, DEADLINE, one_by_one=True)
    record: dict = {"files": {}, "ways": {}, "forms": {}}
    for name, pairs in files.items():
        other = [pair._replace(answer=perturbed(pair.reference)) for pair in pairs]
        record["files"][name] = {
            "itself": share(pairs, judged(pairs, workers), True),
            "perturbed": share(other, judged(other, workers), False),
        }
        print(name, {k: (v["otherwise"], v["pairs"]) for k, v in record["files"][name].items()})
    for name, pairs in ways(files, options.sample).items():
        record["ways"][name] = share(pairs, judged(pairs, workers), True)
        print(name, record["ways"][name]["otherwise"], "of", len(pairs))
    total = Counter()
    for kind, forms in EQUAL.items():
        pairs = [Pair(reference, form, kind) for reference, form in forms]
        record["forms"][kind] = share(pairs, judged(pairs, workers), True)
        total.update(pairs=len(pairs), refused=record["forms"][kind]["otherwise"])
        print(kind, record["forms"][kind]["otherwise"], "of", len(pairs))
    record["false_negative_rate"] = round(total["refused"] / total["pairs"], 4)
    workers.close()
    every = [pair for pairs in files.values() for pair in pairs] or [Pair("1", "1", "")]
    random.Random(0).shuffle(every)
    mixed = [pair._replace(answer=perturbed(pair.reference)) for pair in every]
    mixed = (mixed * (options.count // len(mixed) + 1))[: options.count]
    record["responses_a_second"] = throughput(mixed, len(mixed))
    print(record["false_negative_rate"], record["responses_a_second"])
    save("verifier", record, options.out)


if __name__ == "__main__":
    main()
