"""The site: what is added to the notebooks, and the built pages, as files and in a real browser.

`make docs` builds it, and `make test` does so before these tests; without it, or without a browser, they are skipped.
"""
import functools
import json
import re
import shutil
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlencode, urljoin, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT/"_docs/html"
sys.path.insert(0, str(ROOT/"docs"))
build = pytest.importorskip("build", reason="the tools that make the site are missing")
built = pytest.mark.skipif(not (HTML/"index.html").exists(), reason="the site is not built: make docs")
HERE = ROOT/"nbs/theory/02_structure.ipynb"


def test_a_statement_gets_a_box_and_an_address():
    text = "Before.\n\n**Lemma 2 (union-close).** The union of two matches is one:\n\n$$a$$\n\nAfter."
    found = build.boxed(text, {"lemma-2": "here"}, "here")
    assert found == "Before.\n\n```{index} ! Lemma 2\n```\n\n```{index} ! union-close\n```\n\n" \
                    "(lemma-2)=\n\n::::{admonition} Lemma 2 (union-close)\n:class: statement\n\n" \
                    "The union of two matches is one:\n\n$$a$$\n::::\n\nAfter."
    assert "(lemma-2)=" not in build.boxed(text, {"lemma-2": "elsewhere"}, "here")
    split = build.boxed("**Lemma 3 (a).** Let\n\n$$a\\,,$$\n\nand b.\n\nAfter.", {}, "")
    assert split.endswith("and b.\n::::\n\nAfter.")
    assert build.boxed("**Note.** Not a statement.", {}, "here") == "**Note.** Not a statement."
    assert build.label_of("Remark 2.1 and Appendix C (difference)") == "remark-2-1"
    assert build.label_of("Definition (mean CCA)") == "definition-mean-cca"


def test_links_are_put_into_prose_only():
    def linked(text): return build.with_links(text, {"lemma-2": ""}, {"compare": "package.compare"}, HERE)
    assert linked("By Lemma 2, Lemma 3.") == "By [Lemma 2](#lemma-2), Lemma 3."
    for text in ("# Lemma 2", "`Lemma 2`", "$Lemma 2$", "[Lemma 2](a)", "**Lemma 2.** It", "`compare(a)`",
                 "[`compare`](a.ipynb)"):
        assert linked(text) == text
    assert linked("`compare` them") == "{py:obj}`compare <package.compare>` them"
    assert linked("[text](../../README.md)") == f"[text]({build.SETTINGS['git_url']}/blob/main/README.md)"


def test_links_to_cells_lead_to_the_sites_pages():
    table = nbformat.v4.new_output("display_data",
                                   data={"text/html": '<a href="../theory/02_structure.ipynb#cell-id=ab-1">x</a>'})
    assert build.shown(table)["data"]["text/html"] == '<a href="../theory/02_structure.html#cell-ab-1">x</a>'
    assert {cell.id for cell in build.read(HERE).cells if "**Lemma 2 (" in cell.source} <= build.linked_cells()


def test_a_copy_for_colab_begins_with_what_is_missing_there():
    stored, copy = build.read(HERE), build.for_colab(build.read(HERE), HERE)
    title, first, *rest = copy.cells
    assert [title, *rest] == stored.cells and "git clone" in first.source and build.SETTINGS["git_url"] in first.source
    assert first.source.endswith("\n%cd /content/subspace_match/nbs/theory")
    nbformat.validate(copy)
    assert f"/blob/colab/{build.page(HERE)}.ipynb" in build.launch(HERE) and "mybinder.org" in build.launch(HERE)


def test_the_data_of_a_figure_are_not_shown():
    both = {"image/png": "x", "application/x-figure-data": "{}"}
    assert set(build.shown(nbformat.v4.new_output("display_data", data=both)).data) == {"image/png"}


@built
def test_colab_has_every_notebook():
    assert all((ROOT/f"_docs/colab/{build.page(path)}.ipynb").exists() for path in build.notebooks())


def test_formulas_stand_on_lines_of_their_own():
    assert build.display_math("so $$a = b$$ holds") == "so \n$$\na = b\n$$\nholds"
    assert build.display_math("```\n$$x$$\n```") == "```\n$$x$$\n```"


def test_a_figure_is_described_by_its_caption_or_by_what_it_must_show():
    def sentence(before, after=""):
        code = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data={"image/png": "x"})])
        cells = [nbformat.v4.new_markdown_cell(text) for text in ("# Title\n\n> below", before, after)]
        return build.figures(nbformat.v4.new_notebook(cells=[cells[0], cells[1], code, cells[2]]))[0][2]
    assert sentence("The plot must show a line. It is straight.\n\n| a |\n|---|") == "The plot must show a line."
    assert sentence("One. Two.") == "Two."
    assert sentence("One.", "*Figure: three networks of one kind. More.*\n\nText") == "Three networks of one kind."
    assert sentence("One.", "*Figure: Lemma 18. Its count.*") == "Lemma 18. Its count."
    assert sentence("One.", "*Emphasis* begins a text.") == "One."


def test_the_choice_of_a_measure_is_a_section_that_must_be_there():
    cells = ["# Title", f"## {build.CHOICE}\n\nText", "### Part", "## Next"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in cells])
    path = next((ROOT/"nbs/experiments").glob("36_*"))
    found = build.choice(book, path).cells
    assert [cell.source for cell in found[:2]] == [f"# {build.CHOICE}\n\nText", "### Part"] and len(found) == 3
    with pytest.raises(ValueError, match="no cell begins with"): build.choice(nbformat.v4.new_notebook(), path)


class Page(HTMLParser):
    "What a page links to, what it loads, and the addresses within it."
    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.ids = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        at = dict(attributes)
        if "id" in at: self.ids.add(at["id"])
        if tag == "a" and at.get("href"): self.links.add(at["href"])
        if tag in ("img", "script", "iframe") and at.get("src"): self.loads.add(at["src"])
        if tag == "link" and at.get("rel") not in ("canonical", "search", "index", "next", "prev"):
            self.loads.add(at["href"])


@functools.cache
def pages() -> dict[str, Page]:
    return {path.relative_to(HTML).as_posix(): Page(path)
            for path in sorted(HTML.rglob("*.html")) if "_static" not in path.parts}


@built
def test_no_link_is_dead():
    dead = []
    for name, page in pages().items():
        for link in page.links | page.loads:
            if urlsplit(link).scheme: continue
            target = urlsplit(urljoin(name, link))
            path = unquote(target.path) or name
            known = pages()[path].ids if path in pages() else None
            lost = target.fragment and known is not None and unquote(target.fragment) not in known
            if not (HTML/path).is_file() or lost:
                dead.append(f"{name}: {link}")
    assert not dead and sum(len(page.links) for page in pages().values()) > 1000


@built
def test_links_to_the_repository_name_files_that_exist():
    start = f"{build.SETTINGS['git_url']}/"
    links = {link for page in pages().values()
             for link in page.links if link.startswith((f"{start}blob", f"{start}tree"))}
    missing = [link for link in links if not (ROOT/urlsplit(link).path.split("/", 5)[-1]).exists()]
    assert links and not missing


@built
def test_pages_load_nothing_from_elsewhere():
    assert not {load for page in pages().values() for load in page.loads if urlsplit(load).scheme in ("http", "https")}
    assert all("MathJax" not in text or "cdn." not in text
               for text in [(HTML/"index.html").read_text(encoding="utf-8")])


@built
def test_every_statement_has_an_address():
    numbered = {label: page for label, page in build.statements().items() if re.search(r"\d", label)}
    assert not {label for label, page in numbered.items() if label not in pages()[f"{page}.html"].ids}
    assert {"definition-1", "lemma-2", "theorem-10", "algorithm-3", "lemma-18"} <= set(numbered)


@built
def test_the_gallery_has_every_figure_and_a_sentence_for_each():
    drawn = [cell for path in build.notebooks() for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
             for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    text = (HTML/"gallery.html").read_text(encoding="utf-8")
    captions = re.findall(r'caption-text">(.*?)</span><a class="headerlink"', text, re.DOTALL)
    assert len(captions) == text.count("<figure") == len(drawn) > 50
    assert all(len(re.sub(r"<[^>]+>", "", caption)) > 15 for caption in captions)


@built
def test_the_reference_describes_every_public_name():
    ids = set().union(*(page.ids for name, page in pages().items() if name.startswith("api/")))
    assert set(build.public_names().values()) <= ids


@built
def test_llms_txt_lists_every_notebook():
    links = re.findall(r"\]\(([^)]+)\)", (HTML/"llms.txt").read_text(encoding="utf-8"))
    assert len(links) == len(build.notebooks()) - 1
    assert all((HTML/link.removeprefix(f"{build.SITE}/")).exists() for link in links)


@pytest.fixture(scope="module")
def browser():
    "Headless Chromium, the address of a server for the built site in `browser.site`."
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not program or not driver: pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    if not (HTML/"index.html").exists(): pytest.skip("the site is not built: make docs")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_): pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-background-networking",
                 "disable-component-update", "disable-sync"): options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(120)
    browser.site = f"http://127.0.0.1:{server.server_port}"
    yield browser
    browser.quit()
    server.shutdown()


def narrow(browser, width, height=844):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})


# a driver may come back from `get` while the page is still being read: what is there is asked for when all has come
STATE = """const done = arguments[0];
const read = new Promise(found => document.readyState === "complete" ? found() : addEventListener("load", found));
read.then(() => {
    document.querySelectorAll("img").forEach(img => img.loading = "eager");
    const pictures = [...document.images].map(img => img.decode().catch(() => null));
    const formulas = document.querySelector(".math") ? MathJax.startup.promise : null;
    return Promise.all([formulas, ...pictures]);
}).then(() => ({
    page: location.pathname.slice(1),
    formulas: document.querySelectorAll(".math").length,
    set: document.querySelectorAll(".math mjx-container").length,
    wrong: [...document.querySelectorAll("mjx-merror, [data-mml-node=merror]")].map(node => node.textContent),
    left: [...document.querySelectorAll(".bd-article p")]
        .filter(p => /\\\\\\(|\\$\\$/.test(p.innerText)).map(p => p.innerText.slice(0, 80)),
    blank: [...document.images].filter(img => !img.naturalWidth).map(img => img.src),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
})).then(done, reason => done({failed: String(reason)}))"""


@built
def test_every_page_on_a_phone(browser):
    "Formulas are set, figures are there, nothing is wider than the screen, and the console is silent."
    narrow(browser, 390)
    wrong, formulas = [], 0
    for name in pages():
        browser.get(f"{browser.site}/{name}")
        state = browser.execute_async_script(STATE)
        assert state.get("page") == name, (name, state)
        formulas += state["set"]
        errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        if state["formulas"] != state["set"]:
            wrong.append(f"{name}: {state['set']} of {state['formulas']} formulas are set")
        wrong += [f"{name}: {key}: {state[key]}" for key in ("wrong", "left", "blank") if state[key]]
        if state["wide"] > 0: wrong.append(f"{name}: wider than the screen by {state['wide']} pixels")
        wrong += [f"{name}: {error}" for error in errors]
    assert not wrong, "\n".join(wrong)
    assert formulas > 500


QUESTIONS = {"simple match": "theory/02_structure.html", "what is a simple match?": "theory/02_structure.html",
             "How do I compare my two models?": "networks/27_your_own_networks.html",
             "which measure should I report": "experiments/which-measure.html", "Lemma 6": "theory/02_structure.html#",
             "maximum_match": "api/algorithms.html#subspace_match.algorithms.maximum.maximum_match"}


@built
@pytest.mark.parametrize("question", QUESTIONS)
def test_search_answers(browser, question):
    "What a newcomer types leads, first of all, to where it is answered."
    narrow(browser, 1280)
    browser.get(f"{browser.site}/search.html?{urlencode({'q': question})}")
    found = browser.execute_async_script("""const done = arguments[0], start = Date.now();
        (function look() {
            const found = [...document.querySelectorAll("#search-results ul.search a")];
            const links = found.map(a => a.getAttribute("href"));
            if (links.length > 5 || Date.now() - start > 20000) done(links); else setTimeout(look, 100);
        })()""")
    assert found[0].startswith(QUESTIONS[question]), found[:5]


BARS = """const formulas = [...document.querySelectorAll("span.math mjx-container")];
return [formulas.length, formulas.filter(m => m.offsetHeight > m.clientHeight).length]"""


@built
@pytest.mark.parametrize("width", (390, 1280))
def test_formulas_in_a_line_have_no_scroll_bars(browser, width):
    narrow(browser, width)
    browser.get(f"{browser.site}/algorithms/11_geometry.html")
    browser.execute_async_script(STATE)
    formulas, with_bars = browser.execute_script(BARS)
    assert formulas > 100 and not with_bars


@built
def test_dark_mode_darkens_the_page(browser):
    narrow(browser, 1280)
    shades = {}
    for mode in ("light", "dark"):
        browser.get(f"{browser.site}/theory/02_structure.html")
        browser.execute_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
        browser.refresh()
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        shades[mode] = sum(map(int, re.findall(r"\d+", color)[:3]))
    assert shades["dark"] < 150 < 600 < shades["light"]
