"""prime-rl's own curriculum around our sampler; its dispatcher and engine are stood in for.

run_prime_rl.py OUT: a whole run, and one that is killed and resumed from a file like prime-rl's.
"""

import hashlib
import json
import pickle
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import verifiers.v1 as vf
from prime_rl.orchestrator.curriculum import Curriculum, TaskSampler

import dpsjax
from dpsjax.adapters.prime_rl import attach

TASKS, BATCH, GROUP, STEPS = 24, 4, 4, 6


def group_of(task, place):
    """A finalized group: rewards by a die of the task and the place in the run; one errs."""
    episodes = []
    for rollout in range(GROUP):
        die = hashlib.sha256(f"{task.data.idx} {place} {rollout}".encode()).digest()[0]
        wire = vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
        trace = vf.Trace(
            task=wire,
            agent=vf.AgentInfo(config=vf.AgentConfig()),
            nodes=[],
            rewards={"reward": vf.Reward(score=float(die % 3 == 0))},
            ok=True,
        )
        episodes.append(
            vf.Episode(
                env=vf.EnvInfo(id="test", name="test"),
                task=wire,
                group=vf.GroupInfo(id=str(uuid.uuid4())),
                traces=[trace],
            )
        )
    return episodes


def made():
    tasks = [vf.Task(vf.TaskData(idx=i, prompt=f"task {i}")) for i in range(TASKS)]
    source = SimpleNamespace(curricula={"test": Curriculum(None, tasks)})
    attach(source, "test", dpsjax.selectors.dps(), batch_size=BATCH)
    of = source.curricula["test"]
    assert isinstance(of.sampler, TaskSampler)
    return of


def play(of, steps, out, save_after=None):
    """Steps in which groups end in another order than they began, and every fifth never does."""
    asked = []
    for step in steps:
        tasks = [next(of.sampler) for _ in range(BATCH)]
        asked.append([task.data.idx for task in tasks])
        for place in reversed(range(BATCH)):
            if (step * BATCH + place) % 5 != 4:
                assert of.on_result(group_of(tasks[place], step * BATCH + place))
        if step == save_after:
            with (out / "progress.pt").open("wb") as stream:
                pickle.dump(of.state_dict(), stream)  # torch.save, as prime-rl does, is this
    return asked


def main() -> None:
    out = Path(sys.argv[1])
    whole, killed, late = made(), made(), made()
    asked = play(whole, range(STEPS), out)
    play(killed, range(3), out, save_after=2)
    # What was out when it was saved comes first, once more.
    out_then = [task for _, task in killed.sampler.out]
    with (out / "progress.pt").open("rb") as stream:
        late.load_state_dict(pickle.load(stream))
    again = [next(late.sampler).data.idx for _ in out_then]
    late.sampler.out.clear()  # stale once more; then it is the whole run
    resumed = play(late, range(3, STEPS), out)
    found = {
        "asked": asked,
        "resumed": resumed,
        "out_then": out_then,
        "again": again,
        "metrics": [whole.metrics(), late.metrics()],
        "rates": [of.sampler.curriculum.table()["rate"].tolist() for of in (whole, late)],
        "rollouts": whole.sampler.curriculum.table()["rollouts"].tolist(),
    }
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
