"""The notebook runs from top to bottom on the backend at hand, and is kept as it was executed."""

import pathlib
import re

import keras
import nbformat
import pytest
from nbclient import NotebookClient

PATH = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.read(PATH, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    notebook.cells.append(nbformat.v4.new_code_cell("print('backend', keras.backend.backend())"))
    return NotebookClient(notebook, timeout=300, kernel_name="python3").execute()


def test_it_draws_its_pictures_on_this_backend(executed):
    assert f"backend {keras.backend.backend()}" in printed(executed)
    assert len(pictures(executed)) == 3


def test_what_it_says_of_the_numbers_is_so(executed):
    plain, matched = (float(loss) for loss in re.findall(r"cross-entropy (\S+)", printed(executed)))
    assert matched < plain
    plain, matched = (float(share) for share in re.findall(r"training \S+  test (\S+)", printed(executed)))
    assert matched < plain


def test_it_is_kept_as_executed_and_small():
    kept = nbformat.read(PATH, as_version=4)
    assert len(pictures(kept)) == 3
    assert PATH.stat().st_size < 300_000
