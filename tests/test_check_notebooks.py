"""What `check_notebooks.py` notices in a notebook's outputs, and what it lets pass."""
import base64
import io
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from check_notebooks import check, difference, directives, is_from_here, processor
from figure_data import KIND, figure_data
from forked_kernels import Manager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


def text(words): return [new_output("stream", name="stdout", text=words)]


def picture(level=0.5, width=1.0, title="", data=False, shades=None, scale="linear"):
    "A curve at a height, as a cell stores it; with the data behind it, or without."
    fig, ax = plt.subplots(figsize=(6, 4))
    ax.plot(np.linspace(0.1, 1, 50)**2*level, linewidth=width)
    ax.annotate("", (40, level), (0, 0.1), arrowprops={"arrowstyle": "->"})
    if shades: ax.imshow([shades], vmin=0, vmax=9)
    ax.set(ylim=(0.01, 1), title=title, yscale=scale)
    file = io.BytesIO()
    fig.savefig(file, dpi=60)
    found = {"image/png": base64.b64encode(file.getvalue()).decode()} | ({KIND: figure_data(fig)} if data else {})
    plt.close(fig)
    return [new_output("display_data", data=found)]


@pytest.mark.parametrize("stored, run", [
    ("the match has 5 neurons", "the match has 6 neurons"), ("5 neurons", "5 channels"), ("0.25", "0.2512"),
    ("1 2", "1 2 3"),
    ("0.5", "nan"), ("", "a warning"), ("version 1.2.3", "version 1.2.4"),
    ("<td>1,024</td>", "<td>1,025</td>".replace("5", "9"))])
def test_text_that_differs_is_noticed(stored, run):
    assert difference(text(stored), text(run)) and difference(text(run), text(stored))


@pytest.mark.parametrize("stored, run",
                         [("0.123456", "0.123457"), ("3e-17", "-1.2e-16"), ("a  b\n", "a b"), ("−0.5000", "-0.5000")])
def test_rounding_and_blanks_pass(stored, run):
    found = difference(text(stored), text(run))
    assert found is None


def test_names_drawn_at_random_pass():
    def table(name): return [new_output("display_data", data={"text/html": f"<table id='T_{name}'>"})]
    def result(words): return [new_output("execute_result", data={"text/plain": words})]
    assert difference(table("f185b"), table("5c1fa")) is None
    assert difference(result("<Legend>"), result("<Legend at 0x7f7da1fb0c90>")) is None


def test_outputs_that_come_or_go_are_noticed():
    assert "stores 0 outputs, the run gives 1" in difference([], text("a"))
    assert "the run gives image/png" in difference(text("a"), picture())


def test_pictures_differ_when_their_curves_do_and_not_by_a_hair():
    assert difference(picture(), picture()) is None
    assert difference(picture(), picture(level=0.501)) is None
    assert difference(picture(), picture(width=1.1)) is None
    assert difference(picture(), picture(level=0.45))
    assert difference(picture(), picture(level=0))


def test_figures_differ_by_the_data_behind_them():
    def drawn(**changes): return picture(data=True, **changes)
    before = drawn(title="accuracy 95.1 %", shades=[1, 2, 3])
    assert difference(before, drawn(title="accuracy 95.1 %", shades=[1, 2, 3], width=3, level=0.501)) is None
    for change in ({"title": "accuracy 95.9 %"}, {"title": "loss 95.1 %"}, {"level": 0.51}, {"shades": [1, 2, 4]},
                   {"scale": "log"}, {"shades": [1, 2, 3, 3]}):
        after = drawn(**{"title": "accuracy 95.1 %", "shades": [1, 2, 3]} | change)
        assert difference(before, after) and difference(after, before), change
        assert difference(before, after, varies=True) is None
    assert "gives none" in difference(drawn(), picture())


def test_a_figure_of_a_notebook_is_stored_with_its_data(tmp_path):
    path = tmp_path/"figure.ipynb"
    cell = new_code_cell("from matplotlib import pyplot as plt\nplt.plot([0, 1], [0, 1]);")
    nbformat.write(new_notebook(cells=[cell]), path)
    assert check(path, store=True) == []
    book = nbformat.read(path, as_version=4)
    assert {KIND, "image/png"} <= set(book.cells[0].outputs[0].data)
    book.cells[0].source = cell.source.replace("[0, 1]);", "[0, 0.9]);")
    nbformat.write(book, path)
    assert "(figure)" in check(path)[0]


def test_a_cell_that_varies_keeps_its_words():
    assert difference(text("2.5 s for 3 runs"), text("7.5 s for 3 runs"), varies=True) is None
    assert difference(text("2.5 s"), text("2.5 minutes"), varies=True)
    assert difference(picture(), picture(level=0), varies=True) is None
    assert directives("#| varies: timings\n#| export\nf()") == {"varies": "timings", "export": ""}


def test_what_trains_is_compared_on_the_processor_it_is_from():
    def book(source, **metadata): return new_notebook(cells=[new_code_cell(source)], metadata=metadata)
    assert is_from_here(book("plt.subplots(layout='constrained')")) and not is_from_here(book("train()"))
    assert is_from_here(book("train()", processor=processor()))


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path/"small.ipynb"
    cells = [new_markdown_cell("# Title"), new_code_cell("#| eval: false\n1/0"), new_code_cell("print(6*7)")]
    cells[2].outputs = text("41\n")
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_notebook_is_executed_compared_and_stored(notebook):
    found, = check(notebook)
    assert "stores the number 41, the run gives 42 (stdout)" in found and notebook.name in found
    assert check(notebook, store=True) == [] == check(notebook)
    book = nbformat.read(notebook, as_version=4)
    assert book.cells[2].outputs == text("42\n") and book.metadata.processor == processor()
    book.cells[2].source = "raise ValueError('seen')"
    nbformat.write(book, notebook)
    assert "seen" in check(notebook)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
def test_forked_kernels_are_like_others_and_have_modules_of_their_own(tmp_path):
    notebook, path = new_notebook(), tmp_path/"first.ipynb"
    notebook.cells = [new_code_cell("import json, os, sys\nassert not hasattr(json, 'mark')\njson.mark = 1"),
                      new_code_cell("import matplotlib, pandas as pd\n"
                                    "assert pd.get_option('display.max_columns') == 20\n"
                                    "assert matplotlib.get_backend() == 'module://matplotlib_inline.backend_inline'"),
                      new_code_cell("assert os.getppid() == int(os.environ['JPY_PARENT_PID'])\n"
                                    f"assert os.path.samefile('.', {str(tmp_path)!r})\n"
                                    "assert not [folder for folder in sys.path if folder.endswith('tests')]")]
    nbformat.write(notebook, path)
    for _ in range(2): assert check(path, kernel_manager_class=Manager) == []
    notebook.cells.append(new_code_cell("1/0"))
    nbformat.write(notebook, path)
    assert "ZeroDivisionError" in check(path, kernel_manager_class=Manager)[0]
