"""The notebooks: they run from beginning to end, and what is committed was made by running them."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from notebooks.__main__ import FOLDER, Notebook, found, run
from notebooks.figures.trial import QUICK

NOTEBOOKS = found()
NAMES = [one.name for one in NOTEBOOKS]
MOST_LINES = 25
MOST_BYTES = 300_000
CELL_SECONDS = 240
LIGHT = 200  # of 255, the mean of the corners of a picture
ELSEWHERE = re.compile(r"(?<![\w.~:/])/(?:home|root|Users|tmp|var|opt|usr|work|mnt|srv)/")

every = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=NAMES)


def code(notebook: Notebook) -> list[Any]:
    return [cell for cell in notebook.cells.cells if cell.cell_type == "code"]


def outputs(notebook: Notebook) -> list[Any]:
    return [output for cell in code(notebook) for output in cell.outputs]


def charts(notebook: Notebook) -> list[Any]:
    return [one for one in outputs(notebook) if "image/png" in one.get("data", {})]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_beginning_to_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh kernel on the CPU, measuring for moments only; every claim in it holds."""
    monkeypatch.setenv(QUICK, "1")
    notebook = Notebook(FOLDER / f"{name}.ipynb")
    notebook.execute(CELL_SECONDS)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [one for one in outputs(notebook) if one.get("name") == "stderr"]


def test_all_six_are_there_and_in_the_table() -> None:
    """Whoever opens the folder finds each by its question."""
    table = (FOLDER / "README.md").read_text()
    assert len(NAMES) == 6
    assert [name for name in NAMES if f"]({name}.ipynb)" not in table] == []


@every
def test_a_notebook_was_executed_once_from_top_to_bottom(notebook: Notebook) -> None:
    """Counts 1 to N: no cell was left out, repeated, or run in another order; no noise is left."""
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {(one.output_type, one.get("name", "")) for one in outputs(notebook)}
    assert kinds <= {("execute_result", ""), ("display_data", ""), ("stream", "stdout")}


@every
def test_a_notebook_names_no_place_of_a_machine(notebook: Notebook) -> None:
    """Nor in its outputs, which were made somewhere; a search that finds nothing proves nothing."""
    assert ELSEWHERE.search('File "/home/somebody/x.py"')
    assert not ELSEWHERE.search("see ../bench/results and http://127.0.0.1/home/")
    assert ELSEWHERE.findall(notebook.path.read_text()) == []


@every
def test_a_notebook_is_valid_small_and_read_at_a_glance(notebook: Notebook) -> None:
    """In the format it claims; what needs more lines is a function with a test."""
    nbformat.validate(notebook.cells)
    assert notebook.path.stat().st_size <= MOST_BYTES
    lengths = {cell.id: len(cell.source.splitlines()) for cell in code(notebook)}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


@every
def test_a_notebook_begins_with_its_question_and_ends_with_an_answer(notebook: Notebook) -> None:
    """The title, the question in bold; the last heading is the answer's."""
    prose = [cell.source for cell in notebook.cells.cells if cell.cell_type == "markdown"]
    assert prose[0].startswith("# ")
    assert re.search(r"\*\*[^*]+\?[^*]*\*\*", prose[0])
    headings = [line for text in prose for line in text.splitlines() if line.startswith("## ")]
    assert headings[-1] == "## Answer"
    assert any("assert" in cell.source for cell in code(notebook)), "it claims something"


@every
def test_every_picture_is_light_and_says_what_it_shows(notebook: Notebook) -> None:
    """Its words stand beside it for whoever cannot see it: `chart: ` and its titles."""
    assert charts(notebook)
    for chart in charts(notebook):
        assert re.fullmatch(r"chart: .+", chart.data["text/plain"])
        picture = Image.open(io.BytesIO(base64.b64decode(chart.data["image/png"]))).convert("L")
        right, bottom = picture.width - 1, picture.height - 1
        corners = [picture.getpixel((x, y)) for x in (0, right) for y in (0, bottom)]
        assert min(float(str(one)) for one in corners) > LIGHT


def test_a_notebook_that_fails_says_where_and_stays_as_it_was(tmp_path: Path) -> None:
    """`make notebooks` spoils nothing."""
    path = tmp_path / "broken.ipynb"
    made: Any = nbformat.v4
    cells = [made.new_code_cell("1 + 1"), made.new_code_cell("assert 1 == 2, 'no'")]
    path.write_text(made.writes(made.new_notebook(cells=cells)))
    before = path.read_bytes()
    failed = run([Notebook(path)], cell_seconds=60)
    assert len(failed) == 1
    assert "broken.ipynb" in failed[0]
    assert "no" in failed[0]
    assert path.read_bytes() == before
