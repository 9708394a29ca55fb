"""dpsjax, TRL and google-tunix side by side on this machine's cores: tokens a second and memory.

    benchmarks/peers/setup.sh                       # once: an environment for each peer
    python benchmarks/peers/run.py --rounds 3       # the Python that has dpsjax

Each side runs in a process of its own, one after another, the order turning from round to round.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

import workload as w

HERE = Path(__file__).parent
ROOT = Path(os.environ.get("DPSJAX_PEERS", Path.home() / ".cache" / "dpsjax-peers"))
# What is run: environment, script and options. Each peer at 16 sequences, its best elsewhere; TRL
# also generating all 128 at once, which is the faster of the two on some machines.
SIDES = {
    "dpsjax": ("dpsjax", "side_dpsjax.py", []),
    "trl": ("trl", "side_trl.py", []),
    "trl-128": ("trl", "side_trl.py", ["--generate", "128"]),
    "tunix": ("tunix", "side_tunix.py", []),
    "tunix-128": ("tunix", "side_tunix.py", ["--generate", "128"]),
}
DEFAULT = ["dpsjax", "trl", "trl-128", "tunix"]
MATMUL = """
import time, jax, jax.numpy as jnp
square, product = jnp.ones((2048, 2048)), jax.jit(lambda a: a @ a)
times = []
for _ in range(8):
    start = time.perf_counter()
    product(square).block_until_ready()
    times.append(time.perf_counter() - start)
print(2 * 2048**3 / min(times) / 1e9)
"""


def python_of(environment: str) -> str:
    """The interpreter of a side."""
    if environment == "dpsjax":
        return sys.executable
    path = ROOT / environment / "bin" / "python"
    if not path.exists():
        raise SystemExit(f"there is no {path}: run benchmarks/peers/setup.sh {environment}")
    return str(path)


def run(command: list[str]) -> str:
    """The last line that a command prints, or the end of its complaint."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    variables |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=HERE, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def one_round(sides: list[str], steps: int) -> dict:
    """Every side once."""
    record = {"matmul_gflops": round(float(run([sys.executable, "-c", MATMUL])), 1)}
    for side in sides:
        environment, script, options = SIDES[side]
        line = run([python_of(environment), script, "--steps", str(steps), *options])
        record[side] = json.loads(line)
        print(
            f"  {side}: {median(s['step'] for s in record[side]['steps']):.2f} s a step", flush=True
        )
    return record


def summarise(rounds: list[dict], side: str) -> dict:
    """Medians of a side over the steps of all rounds; drift of its rounds' medians."""
    runs = [record[side] for record in rounds if side in record]
    steps = [step for one in runs for step in one["steps"]]
    by_round = [median(step["step"] for step in one["steps"]) for one in runs]
    middle = {phase: median(s[phase] for s in steps) for phase in ("generate", "update", "step")}
    return {
        "version": runs[0]["version"],
        "parameters": runs[0]["parameters"],
        "generate_tokens_per_second": round(w.GENERATED / middle["generate"]),
        "update_tokens_per_second": round(w.UPDATED / middle["update"]),
        "step_seconds": round(middle["step"], 3),
        "first_step_seconds": round(median(one["first"]["step"] for one in runs), 2),
        "peak_mb": round(median(one["peak_mb"] for one in runs)),
        "rss_mb": round(median(one["rss_mb"] for one in runs)),
        "drift": round((max(by_round) - min(by_round)) / median(by_round), 3),
        "rounds": len(runs),
    }


def against_best(summary: dict) -> dict:
    """Figures of dpsjax over the best peer's, figure by figure."""
    mine = summary["dpsjax"]
    peers = [row for name, row in summary.items() if name != "dpsjax"]
    speed = {
        name: round(mine[name] / max(peer[name] for peer in peers), 2)
        for name in ("generate_tokens_per_second", "update_tokens_per_second")
    }
    costs = ("step_seconds", "first_step_seconds", "peak_mb")
    return speed | {n: round(mine[n] / min(peer[n] for peer in peers), 2) for n in costs}


def show(summary: dict, ratios: dict) -> None:
    """A table."""
    columns = {
        "generate_tokens_per_second": "gen tok/s",
        "update_tokens_per_second": "update tok/s",
        "step_seconds": "step s",
        "first_step_seconds": "first step s",
        "peak_mb": "peak MB",
        "rss_mb": "RSS MB",
        "drift": "drift",
    }
    print("| | " + " | ".join(columns.values()) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for side, row in summary.items():
        print(f"| {side} | " + " | ".join(f"{row[name]:,}" for name in columns) + " |")
    if ratios:
        cells = (str(ratios.get(name, "")) for name in columns)
        print("| dpsjax / best peer | " + " | ".join(cells) + " |")


def summarise_all(rounds: list[dict]) -> tuple[dict, dict]:
    """Every side's summary, and dpsjax against the best peer once all were run."""
    present = [side for side in SIDES if any(side in record for record in rounds)]
    summary = {side: summarise(rounds, side) for side in present}
    complete = all(side in summary for side in DEFAULT)
    return summary, against_best(summary) if complete else {}


def save(rounds: list[dict], out: Path) -> None:
    """Write summary, machine and all raw rounds."""
    summary, ratios = summarise_all(rounds)
    record = {
        "summary": summary,
        "against_best_peer": ratios,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "rounds": rounds,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run the rounds, print the table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="measured after a side's first step")
    parser.add_argument("--sides", nargs="+", default=DEFAULT, choices=SIDES)
    parser.add_argument("--add", action="store_true", help="to the rounds of an earlier record")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "peers.json")
    args = parser.parse_args()
    rounds = (
        json.loads(args.out.read_text(encoding="utf-8"))["rounds"]
        if args.add and args.out.exists()
        else []
    )
    for number in range(args.rounds):
        turn = len(rounds) % len(args.sides)
        print(f"round {number + 1}", flush=True)
        rounds.append(one_round(args.sides[turn:] + args.sides[:turn], args.steps))
        save(rounds, args.out)  # a run that is cut short keeps its rounds
    summary, ratios = summarise_all(rounds)
    show(summary, ratios)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
