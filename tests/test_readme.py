"""The README's examples run as they stand there, and everything it links to exists."""
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT/"README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OWN_COMPARISON = next(example for example in EXAMPLES if "compare(" in example)


@pytest.fixture(scope="module")
def users_files(tmp_path_factory):
    "What a reader of the example brings: two files of weights and a folder of images, here digits."
    folder = tmp_path_factory.mktemp("user")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), folder/f"{name}.pt")
    digits = load_digits()
    for i in range(12):
        path = folder/"images"/str(digits.target[i])/f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i]*15).astype("uint8")).save(path)
    return folder


def run(example): exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example is not OWN_COMPARISON])
def test_example_runs(example): run(example)


@pytest.mark.filterwarnings("ignore:fewer than two samples")
def test_an_own_comparison_leads_to_a_table_and_a_plot(users_files, monkeypatch):
    monkeypatch.chdir(users_files)
    run(OWN_COMPARISON)
    table = pd.read_csv(users_files/"similarity.csv")
    assert table.layer.nunique() == 17 and table.similarity.between(0, 1).all() and set(table.network_a) == {"first"}
    with Image.open(users_files/"similarity.png") as picture: assert picture.width > 300


def test_there_are_examples(): assert len(EXAMPLES) >= 2


def test_an_own_comparison_takes_ten_lines():
    assert len([line for line in OWN_COMPARISON.splitlines() if line.strip()]) <= 10 and ".plot()" in OWN_COMPARISON


@pytest.mark.parametrize("page", [ROOT/"README.md", ROOT/"nbs/index.ipynb"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in links if not (page.parent/link).exists()]
    assert links and not missing
