"""The report: one file that opens without network, in a real browser; names of users are text and nothing else."""
import html
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from subspace_match import compare
from subspace_match.networks.changes import diff
from subspace_match.networks.report import EPS, LARGEST, in_words, page_content, report_results, write_report

STRANGE = """</script><script>document.title = "broken"</script><img src=x onerror='document.title = "broken"'>&lt;"""


def stored(seed, *layers):
    "Stored activations of layers, each of which shares half of its neurons with every other network's."
    own, common = np.random.default_rng(seed), np.random.default_rng(99)
    return {layer: np.c_[common.normal(size=(300, 5)), own.normal(size=(300, 5))] for layer in layers}


@pytest.fixture(scope="module")
def comparison():
    return compare({STRANGE: stored(0, "early", STRANGE), "second": stored(1, "early", STRANGE),
                    "third": stored(2, "early", STRANGE)}, chance=True)


@pytest.fixture(scope="module")
def file(comparison, tmp_path_factory):
    return comparison.report(tmp_path_factory.mktemp("report")/"report.html",
                             pictures={"early": [("a picture", PIXEL)]})


PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060"
                      "0000000400012734270a0000000049454e44ae426082")


def data_of(file):
    "What a page carries."
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(encoding="utf-8"),
                      re.DOTALL)
    return json.loads(found[1])


def test_it_holds_every_number_of_the_tables(comparison, file):
    found, areas = data_of(file), comparison.area()
    assert found["eps"] == list(EPS) and len(found["pairs"]) == 3 and len(found["layers"]) == 2
    table = comparison.similarity(EPS, "leave out")
    for layer in found["layers"]:
        for number, one in layer["pairs"].items():
            a, b = found["pairs"][int(number)]
            row = areas[(areas.layer == layer["name"]) & (areas.network_a == a) & (areas.network_b == b)].iloc[0]
            curve = table[(table.layer == layer["name"]) & (table.network_a == a) & (table.network_b == b)]
            assert one["about"][0] == pytest.approx(row.area, abs=6e-4)
            assert np.allclose(one["curve"][0], curve.similarity, atol=6e-4)
            assert np.allclose(one["curve"][3], curve.chance, atol=6e-4)
            assert sum(map(sum, one["levels"])) == 20


def test_names_are_text(comparison, file):
    text = file.read_text(encoding="utf-8")
    assert "<img src=x" not in text and text.count("</script>") == 2 and html.escape(STRANGE)[:30] in text
    assert data_of(file)["pairs"][0][0] == STRANGE


def test_it_is_small_for_many_networks_and_neurons():
    rng = np.random.default_rng(0)
    n, layers, names = 500, [f"layer{i}" for i in range(12)], [f"network {k}" for k in range(10)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
    key = pd.DataFrame([(layer, depth, a, b) for depth, layer in enumerate(layers) for a, b in pairs],
                       columns=["layer", "depth", "network_a", "network_b"])
    areas = key.assign(area=rng.random(len(key)), low=0.1, high=0.9, chance=0.05, held_out=0.1, n_x=n, n_y=n, dead_x=0,
                       dead_y=0, d=10_000, inputs=10_000, note="")
    similarity = pd.concat([areas.assign(eps=eps, similarity=rng.random(len(key))) for eps in EPS])
    few = key.head(45)
    neurons = pd.concat([pd.DataFrame({**row, "side": "x", "neuron": range(n), "level": rng.random(n), "low": 0.1,
                                       "high": 0.9, "held_out": 0.5, "dead": False}) for row in few.to_dict("records")])
    found = page_content(areas, similarity, neurons, "many", {})
    assert 0 <= found["most"] < 40 and len(json.dumps(found)) < LARGEST


def test_a_page_that_would_be_too_large_says_what_to_do(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr("subspace_match.networks.report.LARGEST", 1000)
    with pytest.raises(ValueError, match="choose networks: comparison.only"):
        write_report(comparison, tmp_path/"a.html")
    assert not list(tmp_path.iterdir())


def test_words_follow_the_numbers():
    comparison = compare({"one": stored(0, "a"), "two": {"a": np.random.default_rng(5).normal(size=(300, 9))}})
    words = " ".join(in_words(comparison.area(), comparison.similarity(0.3, "leave out")))
    assert "above chance in 0 of 1 comparison," in words and "Beware in a: not above chance" in words
    same = compare({"one": stored(0, "a"), "two": stored(0, "a")})
    words = " ".join(in_words(same.area(), same.similarity(0.3, "leave out")))
    assert "above chance in 1 of 1 comparison," in words and "Beware" not in words and "area 1.00" in words
    with pytest.raises(ValueError, match="no layer"): in_words(same.area().head(0), same.similarity(0.3, "leave out"))


def test_where_inputs_repeat_words_and_table_and_figure_say_why_chance_is_missing():
    first, second = (np.tile(np.random.default_rng(seed).normal(size=(60, 10)), (3, 1)) for seed in (0, 1))
    with pytest.warns(UserWarning, match="chance is unknown"):
        repeated = compare({"a": {"early": first}, "b": {"early": second}})
    words = in_words(repeated.area(), repeated.similarity(0.3, "leave out"))[-1]
    assert "Chance is not known here" in words and "Beware in early: many inputs are copies" in words
    assert "chance unknown" in repr(repeated) and "chance unknown" in repeated._repr_html_()
    assert "chance is unknown" in (axes := repeated.plot()).get_xlabel()
    assert "chance" not in [text.get_text() for text in axes.get_legend().get_texts()]
    plt.close(axes.figure)


def test_results_without_areas_are_reported_too(comparison, tmp_path):
    comparison.similarity(EPS, "leave out").to_csv(tmp_path/"similarity.csv", index=False)
    comparison.neuron_levels().to_csv(tmp_path/"levels.csv.gz", index=False)
    (tmp_path/"provenance.json").write_text(json.dumps({"networks": [{"name": "<b>"}], "data": {"title": "Digits"}}))
    found = data_of(report_results(tmp_path))
    one = found["layers"][0]["pairs"]["0"]
    assert one["about"][0] == pytest.approx(comparison.area().area[0], abs=2e-3) and one["about"][1] is None
    assert "Chance is not known" in " ".join(found["words"]) and found["title"] == "<b> on Digits"


@pytest.mark.parametrize("make, message", [(lambda folder: folder/"nothing", "there is no"),
                                           (lambda folder: folder, "holds no results of `compare`")])
def test_wrong_results_are_named(tmp_path, make, message):
    with pytest.raises(FileNotFoundError, match=message): report_results(make(tmp_path))
    with pytest.raises(ValueError, match="is a folder"):
        write_report(compare([stored(0, "a"), stored(1, "a")]), tmp_path)


@pytest.fixture(scope="module")
def browser():
    "Headless Chromium."
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not program or not driver: pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def opened(browser, file, width=1200, dark=False):
    "The page in a window of this width."
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    browser.get(file.as_uri())
    return browser.find_elements("css selector", "#rows button")


def silent(browser):
    return not [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_a_click_opens_what_lies_behind_a_layer(browser, file, comparison):
    rows = opened(browser, file)
    assert [row.find_element("css selector", ".name").text for row in rows] == ["early", STRANGE]
    assert not browser.find_elements("css selector", ".panel:not([hidden])")
    rows[0].click()
    panel = browser.find_element("css selector", ".panel:not([hidden])")
    assert rows[0].get_attribute("aria-expanded") == "true" and "Means over 3 pairs" in panel.text
    assert browser.execute_script("return document.querySelector('.panel img').naturalWidth") == 1
    select = browser.find_element("id", "pair")
    browser.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('change'))", select)
    panel = browser.find_element("css selector", ".panel:not([hidden])")
    worst = comparison.neuron_levels().query("layer == 'early'").head(20).level.max()
    assert "worst represented" in panel.text and f"{worst:.3f}" in panel.text and "Simple matches" in panel.text
    row = browser.find_element("css selector", "#rows button")
    area = comparison.area().area[0]
    assert f"{area:.2f}" in row.text and len(row.find_elements("css selector", ".strip i")) == len(EPS)
    row.click()
    assert not browser.find_elements("css selector", ".panel:not([hidden])")
    assert browser.title != "broken" and silent(browser)


def test_the_keyboard_is_enough(browser, file):
    from selenium.webdriver.common.keys import Keys
    opened(browser, file)
    for _ in range(2): browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(browser.find_elements("css selector", ".panel:not([hidden])")) == 1


def test_a_phone_scrolls_down_only(browser, file):
    rows = opened(browser, file, 360, dark=True)
    for row in rows: row.click()
    for details in browser.find_elements("css selector", "summary"): details.click()
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0 and silent(browser)


def test_it_follows_light_and_dark(browser, file):
    shades = {}
    for dark in (False, True):
        opened(browser, file, dark=dark)
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        shades[dark] = sum(map(int, re.findall(r"\d+", color)[:3]))
    assert shades[True] < 150 < 600 < shades[False]


def test_the_report_of_a_diff(browser, tmp_path):
    changes = diff(stored(0, "a"), stored(1, "a"))
    rows = opened(browser, changes.report(tmp_path/"diff.html"))
    rows[0].click()
    assert browser.find_element("css selector", "main p").text.startswith("1 of 1 layer moved.") and silent(browser)
