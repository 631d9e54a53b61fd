"""The README's examples run as they stand there, its claims are those of the data, and what it links to exists."""
import json
import re
import shutil
from configparser import ConfigParser
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

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
def test_example_runs_and_prints_what_is_written_below_it(example, capsys):
    run(example)
    below = re.match(r"```\n\n```text\n(.*?)```", README.partition(example)[2], re.DOTALL)
    assert capsys.readouterr().out == (below[1] if below else "")


class FunctionalBlock(BasicBlock):
    "A block whose activation functions are called, not modules, as many write it."
    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return out.relu()


class FunctionalResNet(torchvision.models.ResNet):
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4): x = stage(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def functional_resnet(num_classes):
    model = FunctionalResNet(FunctionalBlock, [1, 1, 1, 1], num_classes)
    for module in model.modules(): module.__dict__["_modules"].pop("relu", None)
    return model


def check_table(folder, layer, layers):
    "What the README's ten lines write: a row for each activation function, with interval, chance and held-out value."
    table = pd.read_csv(folder/"area.csv")
    assert table.layer.nunique() == layers and set(table.network_a) == {"first"}
    assert layer in set(table.layer) and "fc (input)" in set(table.layer)
    values = table[["area", "low", "high", "chance", "held_out"]]
    assert ((0 <= values) & (values <= 1)).all(axis=None)
    assert ((table.low <= table.area) & (table.area <= table.high)).all()
    with Image.open(folder/"similarity.png") as picture: assert picture.width > 300


@pytest.mark.filterwarnings("ignore:too few different inputs")
def test_an_own_comparison_leads_to_a_table_and_a_plot(users_files, tmp_path, monkeypatch):
    """From weights to a plot with area, interval, chance and held-out value, in the README's ten lines, here with
    functions in a smaller network. `test_package` runs them as they stand there, from the wheel.
    """
    shutil.copytree(users_files/"images", tmp_path/"images")
    for name in ("first", "second"): torch.save(functional_resnet(10).state_dict(), tmp_path/f"{name}.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.models, "resnet18", functional_resnet)
    run(OWN_COMPARISON)
    check_table(tmp_path, "layer1.0.relu (function)", layers=10)
    legend = {text.get_text() for text in plt.gcf().axes[0].get_legend().get_texts()}
    assert {"area", "95 % (images)", "chance", "held out"} <= legend
    plt.close("all")


def test_there_are_examples(): assert len(EXAMPLES) >= 2


def test_an_own_comparison_takes_ten_lines():
    assert len([line for line in OWN_COMPARISON.splitlines() if line.strip()]) <= 10 and ".plot()" in OWN_COMPARISON


def settings():
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def test_links_survive_elsewhere_and_name_files_that_exist():
    "On PyPI nothing is relative: each link is absolute, and those to the repository name a file of the tree."
    git, branch = settings()["git_url"], settings()["branch"]
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    own = [re.fullmatch(rf"{git}/(?:blob|raw|tree)/{branch}/([^#]+)(?:#.*)?", link)
           for link in links if link.startswith(git)]
    assert all(link.startswith("https://") for link in links) and len(own) > 20 and all(own)
    assert not [match[1] for match in own if not (ROOT/match[1]).exists()]


def test_links_to_the_site_name_pages():
    "A page of the site is a notebook, or one of those that docs/build.py makes."
    site = settings()["doc_host"] + settings()["doc_baseurl"]
    made = {"", "gallery", "api/index", "experiments/which-measure"}
    pages = {link.removeprefix(site).strip("/").removesuffix(".html")
             for link in re.findall(rf"\]\(({site}[^)#\s]*)(?:#[^)\s]*)?\)", README)}
    assert pages and not {page for page in pages - made if not (ROOT/f"nbs/{page}.ipynb").exists()}


def test_links_of_the_first_notebook_lead_somewhere():
    page = ROOT/"nbs/index.ipynb"
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert links and not [link for link in links if not (page.parent/link).exists()]


def test_claims_are_those_of_the_data():
    "What the first screen says of the networks in its figure."
    folder = ROOT/"results/cifar10-jpeg-vgg13-width0.5"
    networks = json.loads((folder/"provenance.json").read_text(encoding="utf-8"))["networks"]
    table = pd.read_csv(folder/"similarity.csv")
    accuracy = sum(network["validation_accuracy"] for network in networks)/len(networks)
    cells = json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    index = "\n\n".join("".join(cell["source"]) for cell in cells)
    captions = [re.search(r"([Ff]ive VGG13 of half the width that.*?)\*\n", text, re.DOTALL)[1]
                for text in (README, index)]
    assert len(networks) == 5 and {network["width"] for network in networks} == {0.5}
    for caption in captions:
        assert f"({networks[0]['epochs']} epochs, {accuracy:.1%}".replace("%", " %") in caption
        assert f"d = {table.d.max():,} in the first" in " ".join(caption.split())
    means = table.pivot_table(index="layer", columns=table.eps.round(3), values=["similarity", "chance"])
    at, chance = means["similarity"], means["chance"]
    convolutions = [layer for layer in at.index if "conv" in layer and layer != "stage1.conv1.relu"]
    steep = at[(at[0.7] < 0.15) & (at[0.8] > 0.96)].index
    assert len(convolutions) == 9 and at.loc[convolutions, 0.3].max() < 0.04
    assert len(steep) == 4 and chance.loc[steep, 0.8].max() == 0
    untrained = pd.read_csv(ROOT/"results/dynamics/cifar10-jpeg-vgg13-width0.5-calibrated.csv.gz")
    untrained = untrained.query("kind == 'same epoch' and epoch_a == 0").pivot_table(
        index="layer", columns=untrained.eps.round(3), values="similarity")
    assert untrained.loc[steep, 0.8].min() > 0.98 and untrained.loc[convolutions, 0.5].max() < 0.15
    stitches = pd.read_csv(ROOT/"results/stitching/cifar10-jpeg-vgg13-width0.5.csv.gz").query("given == 'b'")
    stitched = stitches.groupby("layer")[["accuracy", "s_0.5"]].mean().query("`s_0.5` < 0.05").accuracy
    assert len(stitched) == 6
    assert f"answers {100*stitched.min():.0f} to {100*stitched.max():.0f} % correctly" in README


def test_both_first_screens_promise_two_commands():
    for page in ("README.md", "nbs/index.ipynb"):
        text = (ROOT/page).read_text(encoding="utf-8")
        assert "make reproduce" in text and "make test" in text
