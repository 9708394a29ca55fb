"""What a page is made of; the page in a browser: test_view_page.py."""

import base64
import json
import re

import numpy as np
import pytest

from dpsjax import cli
from dpsjax.report import prompt_table
from dpsjax.report.pool_file import IMAGES, read_pool, write_pool
from dpsjax.report.view.data import Limits, read_folder, to_json
from dpsjax.tasks.base import Problem
from tests.report.view_folders import HOSTILE, write_run

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_what_the_files_say(tmp_path, capsys):
    records = write_run(tmp_path / "run")
    assert cli.main(["view", str(tmp_path / "run")]) == 0
    path = tmp_path / "run" / "view.html"
    assert str(path) in capsys.readouterr().out
    [run] = data_of(path.read_text(encoding="utf-8"))["runs"]
    visits = run["visits"]
    whole = prompt_table.histories(records, 12)
    for prompt, expected in enumerate(whole):
        found = [
            (step, passes, trials)
            for step, of, passes, trials in zip(
                visits["step"], visits["prompt"], visits["passes"], visits["trials"], strict=True
            )
            if of == prompt
        ]
        assert found == [tuple(visit) for visit in expected]
    predicted = np.concatenate([r["groups"]["predicted"] for r in records], axis=1)
    np.testing.assert_allclose(np.array(visits["predicted"]) / 1000, predicted, atol=5.1e-4)
    assert run["series"]["effective_ratio"] == [
        float(f"{r['effective_ratio']:.4g}") for r in records
    ]
    assert run["held_out"]["accuracy"] == [0.2, 0.5] and run["held_out"]["best_before"] == 0.25
    assert run["pool"]["id"][-1] == HOSTILE[2] and len(run["pool"]["text"]) == 12
    assert run["responses"][0]["response"].startswith(HOSTILE[1])


def test_a_page_has_two_scripts_and_fetches_nothing(tmp_path):
    write_run(tmp_path / "run")
    cli.main(["view", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and page.count("</script") == 2
    assert not re.search(r"""(src|href)=|@import|url\(""", page.split('id="data"')[0])
    assert "default-src 'none'" in page and "unsafe" not in page
    assert set(re.findall(r"https?://[\w./]+", page)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("text", [*HOSTILE, "<" * 5, "é\U0001f600"])
def test_json_inside_a_script_element_says_the_same(text):
    assert "<" not in to_json([text]) and json.loads(to_json([text])) == [text]


def test_a_run_that_goes_on_may_be_cutting_a_line(tmp_path):
    write_run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 7, "gro')
    assert read_folder(tmp_path, Limits())["series"]["step"] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_line_is_named(tmp_path, capsys):
    write_run(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert cli.main(["view", str(tmp_path)]) == 2
    assert "metrics.jsonl, line 1: not a JSON object" in " ".join(capsys.readouterr().err.split())


def test_mistakes_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["view", "nowhere"]) == 2
    assert "nowhere holds neither" in capsys.readouterr().err
    assert cli.main(["view", ".", "--out", "x"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["view", ".", "--responses", "-1"])
    assert "responses=-1" in capsys.readouterr().err


def test_old_runs_without_a_pool_file_are_shown(tmp_path):
    write_run(tmp_path)
    (tmp_path / "pool.jsonl").unlink()
    (tmp_path / "responses.jsonl").unlink()
    run = read_folder(tmp_path, Limits())
    assert run["pool"]["text"] == [] and run["size"] == 12 and run["responses"] == []


def test_the_newest_responses_stay(tmp_path):
    write_run(tmp_path)
    for most in (0, 3):
        run = read_folder(tmp_path, Limits(responses=most))
        assert len(run["responses"]) == most and run["left_out"] == 13 - most
    assert run["responses"][-1]["split"] == "held-out"


class Pictured(Problem):
    """A problem with images, as tasks with images have them."""

    images = ()


def pictured(number, *images):
    problem = Pictured("?", number, "s", id=str(number))
    object.__setattr__(problem, "images", images)
    return problem


def test_images_by_path_bytes_or_row_become_data_uris(tmp_path):
    write_run(tmp_path, prompts=5)
    (tmp_path / "own.png").write_bytes(PNG)
    (tmp_path / "page.svg").write_text("<svg/>", encoding="utf-8")
    pool = [
        pictured(0, tmp_path / "own.png", PNG),
        pictured(1, {"bytes": PNG, "path": None}),
        pictured(2, "gone.png"),
        pictured(3, tmp_path / "page.svg"),
        pictured(4, b"P5 1 1 255 \x00"),  # no browser shows it: it becomes a PNG
    ]
    write_pool(tmp_path, pool)
    assert len(list((tmp_path / IMAGES).iterdir())) == 2  # equal contents are one file
    assert [len(row.get("images", ())) for row in read_pool(tmp_path)] == [2, 1, 1, 1, 1]
    run = read_folder(tmp_path, Limits())
    shown = [[run["images"][place] for place in run["images_of"][str(n)]] for n in range(4)]
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert shown == [[uri, uri], [uri], [None], [None]]
    [place] = run["images_of"]["4"]
    assert (tmp_path / place).read_bytes().startswith(b"\x89PNG")
    assert not any(read_folder(tmp_path, Limits(image_bytes=10))["images"].values())
