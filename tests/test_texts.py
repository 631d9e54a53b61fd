"""How the notebooks on theory and algorithms are written: what each has, and phrases that none should have."""
import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TAUGHT = sorted(path for path in [*(ROOT/"nbs/theory").glob("*.ipynb"), *(ROOT/"nbs/algorithms").glob("*.ipynb")]
                if path.name[:2] not in ("04", "05"))
PROVED = re.compile(r"^\*\*((?:Lemma|Theorem|Proposition|Claim) [\d.]*\d) \(", re.MULTILINE)
# what readers of the first versions stumbled over
PHRASES = ("other than on", "is thinkable", "word by word", "Below stands", "nobody would wish", "is an affair of",
           "'s affair", "chose nothing", "is refused by name", "taken for a mistake", "Wrong input is named",
           "is put again", "that is said.", "It is said.", "learnt")


def cells(path: Path) -> list[dict]: return json.loads(path.read_text(encoding="utf-8"))["cells"]
def source(cell: dict) -> str: return "".join(cell["source"])
def texts(book: list[dict]) -> list[str]: return [source(cell) for cell in book if cell["cell_type"] == "markdown"]
def prose(path: Path) -> str: return "\n\n".join(texts(cells(path)))
def draws(cell: dict) -> bool: return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_a_notebook_says_what_one_will_have_and_draws_it_first(path):
    first = next(i for i, cell in enumerate(cells(path)) if draws(cell))
    said = "\n".join(texts(cells(path)[:first + 8]))
    assert first <= 10 and "**What you will have at the end.**" in said and "**How it proceeds.**" in said
    assert re.search(r"\*\*What you [\w, ]*can skip\.\*\*", said)


def test_definition_1_and_its_picture_come_within_ten_cells():
    book = cells(ROOT/"nbs/theory/01_matches.ipynb")[:10]
    stated = next(i for i, cell in enumerate(book) if "**Definition 1 (" in source(cell))
    assert any(draws(cell) for cell in book[stated:])


@pytest.mark.parametrize("name", ("theory/02_structure", "algorithms/12_maximum_match", "algorithms/13_minimal_matches",
                                  "algorithms/14_simple_matches"))
def test_the_running_example_is_drawn(name):
    book = cells(ROOT/f"nbs/{name}.ipynb")
    first = next(i for i, cell in enumerate(book) if draws(cell))
    assert any("running_example()" in source(cell) for cell in book[:first + 1])


@pytest.mark.parametrize("path", sorted((ROOT/"nbs").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_what_is_numbered_is_counted_from_0(path):
    "In lists such as $M_0, \\dots, M_{k-1}$."
    assert not re.findall(r"\w_\{?1\}?(?:\([^)]*\))?\s*[,+]\s*\\l?dots", prose(path))


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_every_figure_has_a_caption(path):
    book = cells(path)
    bare = []
    for i in (i for i, cell in enumerate(book) if draws(cell)):
        after = next(iter(texts(book[i + 1:])), "")
        if not after.startswith("*Figure: "): bare.append(book[i]["id"])
    assert not bare


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_what_is_proved_is_said_in_plain_words(path):
    text = prose(path)
    starts = [*PROVED.finditer(text)]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    assert not [match[1] for match, end in zip(starts, ends) if "In plain words: " not in text[match.end():end]]


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_two_exercises_with_hidden_solutions(path):
    text = prose(path)
    exercises = re.findall(r"^\*\*Exercise [\d.]+\.\*\*", text, re.MULTILINE)
    assert len(exercises) >= 2 and text.count("<details><summary>Solution</summary>") == len(exercises)
    assert any("assert" in source(cell) for cell in cells(path)[-3:] if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", [*sorted((ROOT/"nbs").rglob("*.ipynb")), ROOT/"README.md"], ids=lambda path: path.stem)
def test_phrases_that_are_not_english(path):
    text = " ".join((prose(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")).split())
    assert not [phrase for phrase in PHRASES if phrase in text]


def test_no_mutant_of_the_engine_survives_without_a_reason():
    with (ROOT/"results/mutants/tally.csv").open(encoding="utf-8") as tally: rows = list(csv.DictReader(tally))
    assert len(rows) > 1000
    assert not [row for row in rows if row["noticed_by"] == "survived" and not row["reason"]]


def lines(path: Path) -> list[str]:
    "What is written by hand, or exported from it: of a notebook the lines of its code."
    if path.suffix != ".ipynb": return path.read_text(encoding="utf-8").splitlines()
    return [line for cell in cells(path) if cell["cell_type"] == "code" for line in source(cell).splitlines()]


WRITTEN = [path for folder in (".github", "docs", "nbs", "subspace_match", "tests") for path in (ROOT/folder).rglob("*")
           if path.suffix in (".py", ".yml", ".ipynb") and path.name != "_modidx.py"
           and ".ipynb_checkpoints" not in path.parts]


def test_no_line_is_over_120_columns():
    """Of modules, notebooks and settings; `_modidx.py` is nbdev's own.

    nbdev breaks `__all__` at 120 columns and then writes ten before it. Where that makes a line too long, what is only
    there for other modules is exported without being listed (`#| exporti`).
    """
    paths = [*sorted(WRITTEN), *(ROOT/name for name in ("setup.py", "settings.ini", "pyproject.toml"))]
    assert len(paths) > 100
    assert not [f"{path.relative_to(ROOT)}: {line}" for path in paths for line in lines(path) if len(line) > 120]
