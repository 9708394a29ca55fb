"""The notebooks of docs/, cell by cell, in tiny sizes."""

import json

import jax
import numpy as np
import pytest

from tests.pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code), "outputs are not kept in the repository"
    return ["".join(cell["source"]) for cell in code]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("DPSJAX_NOTEBOOK_STEPS", "12")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        for place, cell in enumerate(cells(path)):
            exec(compile(cell, f"{path.name}[{place}]", "exec"), namespace)
    if path.stem.startswith("1_"):
        found = {name: mixed for name, (mixed, _) in namespace["found"].items()}
        assert np.mean(found["dps"][-4:]) > np.mean(found["uniform"][-4:])
        assert namespace["same"]
    elif path.stem.startswith("2_"):
        assert namespace["summary"]["steps"] == len(namespace["records"]) == 12
        assert namespace["responses"]
    elif path.stem.startswith("3_"):
        assert {"mine", "dps:cool_down=12", "oracle"} <= set(namespace["found"].values)
        assert all(0 < looks[-1] < 1 for looks in namespace["held_out"].values())
    else:
        assert namespace["same"]
