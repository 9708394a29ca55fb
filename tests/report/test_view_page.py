"""The page in a real browser, if the machine has one."""

import numpy as np
import pytest

from dpsjax.report import prompt_table
from dpsjax.report.response_file import read_responses
from dpsjax.report.view.data import Limits, read_folder
from dpsjax.tasks.base import Problem
from tests.report.browser import ask
from tests.report.view_folders import HOSTILE, write_run

pytestmark = pytest.mark.xdist_group("browser")

READ = """
const all = (s) => [...document.querySelectorAll(s)], click = (e) => e.click();
const rows = () => all(".rows .row:not(.head)").map((r) => r.firstChild.textContent);
const byText = (s, t) => all(s).find((e) => e.textContent.startsWith(t));
const choose = (select, v) => { select.value = v; select.dispatchEvent(new Event("change")); };
const [, filter, source] = all(".bar select");
"""


def alone(text):
    """Half of a pair of surrogates is no character: browsers show that there was something."""
    return text.replace("\ud800", "\ufffd")


def test_what_a_policy_wrote_is_text_and_nothing_else(tmp_path):
    """And the curves, the table and the detail of a prompt are there; one start of the browser."""
    write_run(tmp_path / "run")
    found = ask(
        [read_folder(tmp_path / "run", Limits())],
        READ
        + """
        const result = {
          title: document.title, scripts: document.scripts.length, images: document.images.length,
          resources: performance.getEntriesByType("resource").length,
          curves: all("figure svg").length, tiles: all(".tile b").map((e) => e.textContent),
          empty: all("figure svg").filter((s) => !s.querySelector("path, circle")).length,
        }, texts = new Set();
        for (const row of all(".rows .row:not(.head)")) {
          click(row);
          all(".card pre").forEach((e) => texts.add(e.textContent));
        }
        result.texts = [...texts];
        const search = document.querySelector("input[type=search]");
        search.value = "owned"; search.dispatchEvent(new Event("input"));
        result.found = rows();
        result.question = document.querySelector("pre.question").textContent;
        click(byText("button", "held-out"));
        search.value = ""; search.dispatchEvent(new Event("input"));
        result.held = all("h3")[0].textContent + all(".card .verdict")[0].textContent;
        result.address = location.hash;
        return result;""",
        tmp_path,
        "sort=-prompt",
    )
    assert found["title"] == "run" and (found["scripts"], found["images"]) == (2, 0)
    assert found["resources"] == 0
    assert found["curves"] >= 13 and found["empty"] == 0
    assert found["tiles"][0] == "6" and found["tiles"][3] == "0.200 → 0.500"
    wrote = read_responses(tmp_path / "run" / "responses.jsonl")
    expected = {row["response"] for row in wrote if row["split"] == "train"}
    assert {alone(text) for text in found["texts"]} == {alone(text) for text in expected}
    assert found["found"] == ["11"] and found["question"] == HOSTILE[0]
    assert found["held"] == "Held-out problem 3no verdict" and "prompt=h3" in found["address"]


@pytest.mark.slow
def test_ten_thousand_prompts_sort_and_filter(tmp_path):
    records = write_run(tmp_path / "run", 10_000, 1_000, 64)
    visits = prompt_table.histories(records, 10_000)
    pool = [Problem("?", n, "s", id=str(n)) for n in range(10_000)]
    table = prompt_table.prompt_table(pool, visits, np.zeros((3, 10_000)))
    found = ask(
        [read_folder(tmp_path / "run", Limits())],
        READ
        + """
        const counts = {}, first = {};
        for (const name of ["stuck", "regressed", "never visited", "last all wrong"]) {
          choose(filter, name);
          counts[name] = document.querySelector("[data-count]").textContent;
        }
        choose(filter, "all prompts");
        click(byText(".head button", "visits"));
        first.visits = rows().slice(0, 20);
        const drawn = rows().length;
        click(byText(".head button", "right"));
        first.right = rows().slice(0, 20);
        const grid = document.querySelector(".rows");
        const key = (k) => grid.dispatchEvent(new KeyboardEvent("keydown", { key: k }));
        document.querySelector(".rows .row:not(.head)").click();
        key("j"); key("j"); key("k");
        const chosen = document.querySelector(".detail h3").textContent;
        const bytes = document.getElementById("data").textContent.length;
        return { counts, first, drawn, chosen, bytes };
        """,
        tmp_path,
        "filter=stuck",
    )

    def of(count):
        return "" if count == 10_000 else f"{count:,} of 10,000"

    assert found["counts"] == {
        "stuck": of(len(prompt_table.stuck(table))),
        "regressed": of(len(prompt_table.regressed(table))),
        "never visited": of(table.visits.count(0)),
        "last all wrong": of(table.last_rate.count(0.0)),
    }
    by_visits = sorted(range(10_000), key=lambda n: (-table.visits[n], n))
    assert found["first"]["visits"] == [str(n) for n in by_visits[:20]]
    tried = [n for n in range(10_000) if table.trials[n]]
    by_rate = sorted(tried, key=lambda n: (-table.passes[n] / table.trials[n], n))
    assert found["first"]["right"] == [str(n) for n in by_rate[:20]]
    assert found["drawn"] < 60 and found["chosen"] == f"Prompt {by_rate[1]}"
    assert found["bytes"] < 6e6


@pytest.mark.slow
def test_runs_side_by_side(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"run{seed}", seed=seed)
    found = ask(
        [read_folder(tmp_path / f"run{seed}", Limits()) for seed in (0, 1)],
        READ
        + """
        choose(all(".bar select")[0], "1");
        const legends = all(".legend").map((l) => l.textContent);
        return {
          rows: all("table.plain tr").slice(0, 3).map((r) => r.textContent),
          address: location.hash, names: legends.filter((t) => t === "run0run1").length,
        };""",
        tmp_path,
    )
    assert found["rows"][1].startswith("run06") and found["rows"][2].startswith("run16")
    assert "run=1" in found["address"] and found["names"] >= 8
