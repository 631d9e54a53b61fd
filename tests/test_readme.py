"""The README's examples run as they stand there, and everything it links to exists."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT/"README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.filterwarnings("ignore:fewer than two samples")
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example):
    import matplotlib
    matplotlib.use("Agg")
    exec(compile(example, "README.md", "exec"), {})


def test_there_are_examples(): assert len(EXAMPLES) >= 2


def test_an_own_comparison_takes_ten_lines():
    example = next(e for e in EXAMPLES if "compare(" in e)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10 and ".plot()" in example


@pytest.mark.parametrize("page", [ROOT/"README.md", ROOT/"nbs/index.ipynb"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in links if not (page.parent/link).exists()]
    assert links and not missing
