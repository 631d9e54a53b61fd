"""The site, from the notebooks' stored outputs: `python docs/build.py` writes it to _docs/html and executes nothing.

The notebooks become Sphinx's source nearly as they are. What is added: a box and a link target for each numbered
statement ("**Lemma 2 (union-close).** …"), links from every mention of one, links from `names` to the reference, and
the pages that no notebook is: the reference, the gallery, "Which measure should I report?", llms.txt.

It also writes _docs/colab: the notebooks as they are, with a first cell that brings what Colab lacks. The workflow
`site` pushes them to the branch `colab`, from where Colab opens them.
"""
import base64
import functools
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from fastcore.docments import docments

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/"_docs"
MATHJAX = ROOT/".venv/mathjax/node_modules/mathjax"
_parser = ConfigParser(delimiters=["="], interpolation=None)
_parser.read(ROOT/"settings.ini", encoding="utf-8")
SETTINGS = dict(_parser["DEFAULT"])
SITE = SETTINGS["doc_host"] + SETTINGS["doc_baseurl"]
FLOORS = ("theory", "algorithms", "networks", "experiments")
CHOICE = "Which measure should I report?"                        # the section of notebook 36 that is a page of its own

KINDS = "Definition|Lemma|Theorem|Claim|Proposition|Remark|Algorithm|Corollary"
STATEMENT = re.compile(rf"\*\*((?:{KINDS})\b[^*]*?)\.?\*\*\s*(.*)", re.DOTALL)
NUMBERED = re.compile(rf"\b({KINDS}) ([A-Z]?\d+(?:\.\d+)?)")
# what a link must not be put into: code, formulas, links, bold type
CLOSED = re.compile(r"(```.*?```|``.*?``|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|"
                    r"!?\[[^\]]*\]\([^)]*\)|\*\*[^*]+\*\*|<[^>\n]+>)", re.DOTALL)


def notebooks() -> list[Path]:
    "Every notebook, in the order of reading."
    nbs = ROOT/SETTINGS["nbs_path"]
    return [nbs/"index.ipynb", *(path for floor in FLOORS for path in sorted((nbs/floor).glob("*.ipynb")))]


def read(path: Path): return nbformat.read(path, as_version=4)


def page(path: Path) -> str:
    "The name of a notebook's page."
    return path.relative_to(ROOT/SETTINGS["nbs_path"]).with_suffix("").as_posix()


def title_of(nb) -> tuple[str, str]:
    "A notebook's title and the line below it."
    first = nb.cells[0].source
    title, _, rest = first.partition("\n")
    return title.removeprefix("# ").strip(), rest.strip().removeprefix(">").strip()


def blocks(text: str) -> list[str]:
    "Markdown cut at its blank lines, but not within fenced code."
    found, fenced = [[]], False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        if line.strip() or fenced: found[-1].append(line)
        elif found[-1]: found.append([])
    return ["\n".join(block) for block in found if block]


def slug(text: str) -> str: return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def label_of(title: str) -> str:
    "The address of a statement: `lemma-2` for Lemma 2, and its name's where it has no number."
    numbered = NUMBERED.match(title)
    return slug(numbered[0] if numbered else title)


def statements() -> dict[str, str]:
    "The label of every statement, and the page on which it stands first."
    found = {}
    for path in notebooks():
        for cell in read(path).cells:
            for block in blocks(cell.source) if cell.cell_type == "markdown" else ():
                if match := STATEMENT.match(block): found.setdefault(label_of(match[1]), page(path))
    return found


def public_names() -> dict[str, str]:
    "For each name of the public API where the reference describes it."
    package = importlib.import_module(SETTINGS["lib_path"])
    return {name: f"{getattr(package, name).__module__}.{name}" for name in package.__all__}


def outside(text: str, change) -> str:
    "`change` applied to what lies outside of code, formulas and links."
    return "".join(part if i % 2 else change(part) for i, part in enumerate(CLOSED.split(text)))


def with_links(text: str, labels: dict[str, str], names: dict[str, str], here: Path) -> str:
    """Markdown whose mentions of statements and public names are links, as are its references to files of the
    repository.
    """
    def mention(match):
        label = label_of(match[0])
        return f"[{match[0]}](#{label})" if label in labels else match[0]

    def file(match):
        target = (here.parent/match[2]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT) or target.suffix == ".ipynb": return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"[{match[1]}]({SETTINGS['git_url']}/{kind}/{SETTINGS['branch']}/{target.relative_to(ROOT).as_posix()})"

    def code(match): return f"{{py:obj}}`{match[1]} <{names[match[1]]}>`" if match[1] in names else match[0]

    text = "\n".join(line if line.startswith("#") else outside(line, lambda part: NUMBERED.sub(mention, part))
                     for line in text.split("\n"))
    text = re.sub(r"(?<!!)\[([^\]`]*)\]\(([^)#\s]+)\)", file, text)
    return "".join(part if i % 2 else re.sub(r"(?<![`\[{}\w])`(\w+)`(?!`)", code, part)
                   for i, part in enumerate(re.split(r"(```.*?```|\[[^\]]*\]\([^)]*\))", text, flags=re.DOTALL)))


def boxed(text: str, labels: dict[str, str], here: str) -> str:
    "Markdown whose statements stand in boxes with their numbers; a target on the page where a statement stands first."
    found, parts = [], blocks(text)
    while parts:
        block = parts.pop(0)
        if not (match := STATEMENT.match(block)):
            found.append(block)
            continue
        title, body = match[1], [match[2]]
        # a formula, and the sentence that it is part of
        while parts and (body[-1].rstrip(" $").endswith((":", ",")) or parts[0].startswith("$$")):
            body.append(parts.pop(0))
        label = label_of(title)
        if labels.get(label) == here:
            # search finds it first
            names = [*NUMBERED.findall(title)[:1], *re.findall(r"\(([\w -]+)\)$", title)]
            found += [f"```{{index}} ! {' '.join(name) if isinstance(name, tuple) else name}\n```" for name in names]
            found.append(f"({label})=")
            labels[label] = ""                               # its target is set; a repetition gets none
        inside = "\n\n".join(body).strip() or "\\"
        found.append(f"::::{{admonition}} {title}\n:class: statement\n\n{inside}\n::::")
    return "\n\n".join(found)


def display_math(text: str) -> str:
    "`$$` on lines of their own, as MyST wants them."
    def alone(match):
        formula = match[1].strip()
        return f"\n$$\n{formula}\n$$\n"
    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    return "".join(part if i % 2 else re.sub(r"\n?\$\$(.*?)\$\$[ ]*\n?", alone, part, flags=re.DOTALL)
                   for i, part in enumerate(parts))


def sentences(text: str) -> list[str]:
    "The sentences of a paragraph of Markdown."
    return re.split(r"(?<=[.?!])(?<!e\.g\.)(?<!i\.e\.)(?<! vs\.)\s+(?=[A-Z*$(\[])", " ".join(text.split()))


def told(markdown: str) -> str:
    "What a text says of the picture below it: the sentence that says what it must show, or its last one."
    prose = [block for block in blocks(markdown) if not block.startswith(("#", "|", "```", "- ", "$$", "<", ":::"))]
    found = [sentence for block in prose for sentence in sentences(re.sub(r"^\*\*[^*]+\*\*\s*", "", block))]
    return next((text for text in reversed(found) if re.search(r"\b(must|should) (\w+ )?show|\b[Tt]o be seen\b", text)),
                (found or [""])[-1])


def captioned(caption: str) -> str:
    "The first sentence of `*Figure: …*`; two of them where the first is only a name."
    first, *rest = sentences(caption.strip("*").removeprefix("Figure:").strip())
    text = f"{first} {rest[0]}" if rest and len(first) < 20 else first
    return text[0].upper() + text[1:]


def figures(nb) -> list[tuple[str, str, str]]:
    "(cell id, PNG in base64, one sentence) of each figure: of the caption below it, else of the text before it."
    found, before = [], title_of(nb)[1]
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            before = told(cell.source) or before
            continue
        after = nb.cells[i + 1].source if i + 1 < len(nb.cells) and nb.cells[i + 1].cell_type == "markdown" else ""
        caption = re.match(r"\*[^*].*?[^*]\*(?=\s*(?:\n\n|$))", after, re.DOTALL)
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                found.append((cell.id, "".join(png), captioned(caption[0]) if caption else before))
    return found


CELL_LINK = re.compile(r'href=\\?"([^"#\\]+)\.ipynb#cell-id=([\w-]+)')


@functools.cache
def linked_cells() -> frozenset[str]:
    "The cells to which a table among the stored outputs links, as `notebook.ipynb#cell-id=…`."
    return frozenset(cell for path in notebooks() for _, cell in CELL_LINK.findall(path.read_text(encoding="utf-8")))


def shown(output):
    "A stored output as the site shows it: links to cells lead to the site's pages; the data of a figure are for tests."
    output.get("data", {}).pop("application/x-figure-data", None)
    if html := output.get("data", {}).get("text/html"):
        output["data"]["text/html"] = CELL_LINK.sub(r'href="\1.html#cell-\2', "".join(html))
    return output


def adapted(nb, path: Path, labels: dict[str, str], names: dict[str, str]):
    "A notebook as Sphinx is to read it."
    here, pictures = page(path), {cell: text for cell, _, text in figures(nb)}
    cells = []
    for cell in nb.cells:
        marks = re.findall(r"^#\|\s*(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "code" else ()
        if "hide" in marks: continue
        if cell.cell_type == "markdown":
            cell.source = display_math(boxed(with_links(cell.source, labels, names, path), labels, here))
        if cell.cell_type == "code":
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip("\n")
            if not cell.source and not cell.outputs: continue
            if "echo: false" in marks: cell.metadata["tags"] = ["remove-input"]
            if cell.id in pictures:
                cell.metadata["mystnb"] = {"image": {"alt": plain(pictures[cell.id])}}
                cells.append(nbformat.v4.new_markdown_cell(f"(figure-{cell.id})="))
            cell.outputs = [shown(output) for output in cell.outputs]
        if cell.id in linked_cells(): cells.append(nbformat.v4.new_markdown_cell(f'<span id="cell-{cell.id}"></span>'))
        cells.append(cell)
    nb.cells = cells
    return nb


def launch(path: Path) -> str:
    "Links that open a notebook where it runs without an installation."
    repository = SETTINGS["git_url"].removeprefix("https://github.com/")
    binder = f"https://mybinder.org/v2/gh/{repository}/{SETTINGS['branch']}?urlpath=lab/tree/{SETTINGS['nbs_path']}"
    return (f"Run it: [Colab](https://colab.research.google.com/github/{repository}/blob/colab/{page(path)}.ipynb) · "
            f"[Binder]({binder}/{page(path)}.ipynb)")


def for_colab(nb, path: Path):
    "A notebook with a first cell that brings what Colab lacks: the library, and the files that notebooks read."
    place = f"/content/{SETTINGS['repo']}"
    lines = ["# Colab starts with nothing: this brings the library and the stored results, in a minute or two.",
             f"!git clone --quiet --depth 1 --branch {SETTINGS['branch']} {SETTINGS['git_url']} {place}",
             f"%pip install --quiet {place}",
             f"%cd {place}/{path.parent.relative_to(ROOT).as_posix()}"]
    nb.cells.insert(1, nbformat.v4.new_code_cell("\n".join(lines), id="colab"))
    return nb


def plain(text: str) -> str:
    "Markdown without its marks, for alternative texts."
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[*`$\\]|\{|\}", "", text)


def escaped(text: str) -> str:
    "A docstring's prose as reStructuredText: `code` is code, and nothing else is markup."
    parts = re.split(r"(`+[^`\n]+`+)", text)
    return "".join(f"``{part.strip('`')}``" if i % 2 else re.sub(r"([\\*|_])", r"\\\1", part)
                   for i, part in enumerate(parts))


def process_docstring(app, what, name, obj, options, lines):
    "Our docstrings are plain text with `code` and examples, and parameters are explained beside the signature."
    found = []
    for block in blocks("\n".join(lines)):
        rows = block.split("\n")
        if rows[0].lstrip().startswith(">>>"): found += ["", *rows]
        elif any(row.startswith(" ") for row in rows[1:]): found += ["", *(f"| {escaped(row)}" for row in rows)]
        else: found += ["", *map(escaped, (row.strip() for row in rows))]
    if what == "module": found = []                              # the page says it already
    if inspect.isfunction(obj):
        comments = {key: value for key, value in docments(obj).items() if value and key != "self"}
        found += ["", *(f":{'returns' if key == 'return' else f'param {key}'}: {escaped(' '.join(str(value).split()))}"
                        for key, value in comments.items())]
    lines[:] = found + [""]


def module_names(floor: str) -> list[str]:
    "The floor's modules, in the order of their notebooks."
    package = SETTINGS["lib_path"]
    exports = [(re.search(r"#\|\s*default_exp\s+(\S+)", cell.source), page(path)) for path in notebooks()
               for cell in read(path).cells if cell.cell_type == "code"]
    return [(f"{package}.{match[1]}", at) for match, at in exports if match and match[1].partition(".")[0] == floor]


def summary(obj) -> str: return escaped((inspect.getdoc(obj) or "").split("\n")[0])


def reference(floor: str) -> str:
    "The page that describes a floor's modules."
    title = f"{floor.capitalize()}: reference"
    found = [title, "="*len(title), ""]
    for name, at in module_names(floor):
        module = importlib.import_module(name)
        about = f"{summary(module).rstrip('.')} (explained and tested in :doc:`/{at}`)."
        grown = in_steps(module)
        found += [name.split(".", 1)[1], "-"*70, "", about, "", f".. automodule:: {name}", "   :members:",
                  *([f"   :exclude-members: {', '.join(grown)}"] if grown else []), ""]
        for one in grown: found += [f".. autoclass:: {name}.{one}", "   :members:", "   :inherited-members:", ""]
    return "\n".join(found)


def in_steps(module) -> list[str]:
    "Public classes that get methods from private ones of their module; a page shows all of them in one place."
    return [name for name in module.__all__ if inspect.isclass(item := getattr(module, name))
            and any(base.__name__.startswith("_") and base.__module__ == module.__name__ for base in item.__mro__[1:])]


def public_api(names: dict[str, str]) -> str:
    "The page that lists what `from subspace_match import …` offers."
    package = importlib.import_module(SETTINGS["lib_path"])
    found = ["Reference", "=========", "", f"What ``from {SETTINGS['lib_path']} import …`` offers:", "",
             ".. list-table::", "   :widths: 30 70", ""]
    for name, full in names.items():
        found += [f"   * - :py:obj:`{name} <{full}>`", f"     - {summary(getattr(package, name))}"]
    return "\n".join([*found, "", "Everything, floor by floor:", "", ".. toctree::", "   :maxdepth: 1", "",
                      *(f"   {floor}" for floor in FLOORS), ""])


def gallery(folder: Path) -> str:
    "The page with every figure, one sentence each, and a link to where it is drawn; its pictures go into `folder`."
    found = ["# Gallery\n\nEvery figure, with a sentence about it; a click leads to the cell that draws it."]
    folder.mkdir(parents=True)
    for path in notebooks():
        nb = read(path)
        items = figures(nb)
        if not items: continue
        found.append(f"## [{title_of(nb)[0]}](/{page(path)}.ipynb)\n\n:::::{{container}} gallery")
        for i, (cell, png, text) in enumerate(items):
            (folder/f"{cell}-{i}.png").write_bytes(base64.b64decode(png))
            caption = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
            found.append(f"::::{{figure}} {folder.name}/{cell}-{i}.png\n:alt: {plain(text)}\n:target: "
                         f"{page(path)}.html#figure-{cell}\n\n"
                         f"{caption}\n::::")
        found.append(":::::")
    return "\n\n".join(found) + "\n"


def choice(nb, path: Path):
    "The page that answers `CHOICE`: that section of notebook 36, until the next heading of its level."
    starts = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "markdown"
              and cell.source.startswith(f"## {CHOICE}")]
    if not starts:
        raise ValueError(f"{path.name}: no cell begins with '## {CHOICE}'; the site has a page of that section")
    rest = nb.cells[starts[0]:]
    end = next((i for i, cell in enumerate(rest[1:], 1) if cell.cell_type == "markdown"
                and cell.source.startswith("## ")), len(rest))
    nb.cells = rest[:end]
    nb.cells[0].source = nb.cells[0].source.removeprefix("#")         # a page's heading is of the first level
    nb.cells.append(nbformat.v4.new_markdown_cell(f"From [{title_of(read(path))[0]}]({path.name}), which has the "
                                                  "evidence."))
    return nb


def contents() -> str:
    "The table of contents, which the first page carries without showing it."
    tree = "```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```"
    floors = [tree.format(floor.capitalize(),
                          "\n".join(page(path) for path in notebooks() if page(path).startswith(floor)))
              for floor in FLOORS]
    return "\n\n".join([tree.format("Begin here", "experiments/which-measure\ngallery\napi/index"), *floors])


def llms() -> str:
    "What a language model should know of the site: the form of llmstxt.org."
    found = [f"# {SETTINGS['title']}", f"> {SETTINGS['description']}",
             f"Source: {SETTINGS['git_url']}. Reference of the functions: {SITE}/api/index.html. All figures: "
             f"{SITE}/gallery.html. Which measure to report: {SITE}/experiments/which-measure.html. What a simple "
             f"match is: {SITE}/theory/02_structure.html#definition-4. How to compare two models: "
             f"{SITE}/networks/27_your_own_networks.html#how-do-i-compare-my-two-models."]
    for floor in FLOORS:
        rows = [f"- [{title_of(read(path))[0]}]({SITE}/{page(path)}.html): {title_of(read(path))[1]}"
                for path in notebooks() if page(path).startswith(floor)]
        found.append("\n".join([f"## {floor.capitalize()}\n", *rows]))
    return "\n\n".join(found) + "\n"


def write_source(folder: Path):
    "Everything that Sphinx reads."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels, names = statements(), public_names()
    for path in notebooks():
        nb = adapted(read(path), path, labels, names)
        nb.cells.insert(1, nbformat.v4.new_markdown_cell(launch(path)))
        if page(path) == "index": nb.cells.append(nbformat.v4.new_markdown_cell(contents()))
        (folder/page(path)).parent.mkdir(exist_ok=True)
        nbformat.write(nb, folder/f"{page(path)}.ipynb")
    path = next(path for path in notebooks() if path.name.startswith("36_"))
    nb = adapted(choice(read(path), path), path, labels, names)
    nb.cells = [cell for cell in nb.cells if not cell.source.startswith("(figure-")]           # those targets are in 36
    nbformat.write(nb, folder/"experiments/which-measure.ipynb")
    (folder/"gallery.md").write_text(gallery(folder/"gallery"), encoding="utf-8")
    (folder/"api").mkdir()
    (folder/"api/index.rst").write_text(public_api(names), encoding="utf-8")
    for floor in FLOORS: (folder/f"api/{floor}.rst").write_text(reference(floor), encoding="utf-8")
    (folder/"_static/mathjax").mkdir(parents=True)
    shutil.copy2(MATHJAX/"es5/tex-svg.js", folder/"_static/mathjax")


def main() -> int:
    if not MATHJAX.exists(): sys.exit("MathJax is missing: `make docs` fetches it, once, with npm")
    write_source(OUT/"source")
    for folder in ("html", "colab"): shutil.rmtree(OUT/folder, ignore_errors=True)
    for path in notebooks():
        copy = OUT/f"colab/{page(path)}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(for_colab(read(path), path), copy)
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", OUT/"doctrees", OUT/"source", OUT/"html"]
    failed = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT).returncode
    (OUT/"html/llms.txt").write_text(llms(), encoding="utf-8")
    (OUT/"html/.nojekyll").touch()
    return failed


if __name__ == "__main__": sys.exit(main())
