"""Execute every notebook, once, and compare what it prints and draws with the outputs that it stores.

    python tests/check_notebooks.py                              compare; a difference fails and names its cell
    python tests/check_notebooks.py --store nbs/theory/*.ipynb   store the outputs instead

*Text and tables* must have the same words; their numbers may differ by rounding (`RELATIVE`, `ABSOLUTE`), because
processors add in different orders. *Figures* are compared by the data behind them: beside each picture stands what it
shows, as numbers and words (`figure_data.py`), and what moves by more than `MOVED` of the axes is noticed. Pictures
that have no such data, such as images from files, are compared as pictures, shrunk until the edges of letters and lines
no longer count; `distance` says how far two of them are apart.

A cell whose outputs differ from run to run for a good reason says so in its first line: `#| varies: timings`. Its words
are compared, its numbers and pictures are not. So it is with all cells of the notebooks that train networks, where
their outputs are from another kind of processor or another PyTorch: rounding decides there which network comes out
(AVX2 and AVX-512 disagree in every digit after six epochs). Notebooks keep in their metadata where they were run.
Cells with `#| eval: false` or a flag of `tst_flags` are not run.
"""
import argparse
import base64
import io
import json
import os
import platform
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import forked_kernels
import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from figure_data import KIND

ROOT = Path(__file__).resolve().parent.parent
RELATIVE, ABSOLUTE = 1e-3, 1e-9
MOVED = 0.005                                                    # what a figure shows may move by so much of its axes
BLOCKS, FAR = (48, 64), 0.02                                     # a picture becomes 48 by 64 grey values in [0, 1]
RANDOM = re.compile(r"(?<=\bT_)[0-9a-f]{5}| at 0x[0-9a-f]+")       # pandas' names for styled tables, and addresses
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)", re.IGNORECASE)


def directives(source: str) -> dict[str, str]:
    "The `#| name: value` lines of a cell."
    lines = (line[2:].strip() for line in source.splitlines() if line.startswith("#|"))
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def tst_flags() -> list[str]:
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]["tst_flags"].split()


def is_skipped(cell) -> bool:
    marks = directives(cell.source)
    return marks.get("eval") == "false" or any(flag in marks for flag in tst_flags())


def shown(output) -> tuple[str, str]:
    "What a reader sees of an output: its kind and its content."
    if output.output_type == "stream": return output.name, "".join(output.text)
    for kind in ("image/png", "text/html", "text/markdown", "text/latex", "text/plain"):
        if kind in output.get("data", {}): return kind, RANDOM.sub("", "".join(output.data[kind]))
    return output.output_type, str(output.get("data", output.get("evalue", "")))


def blocks(png: str) -> np.ndarray:
    "A picture as `BLOCKS` means of its grey values."
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture.convert("RGBA"))
        return np.asarray(white.convert("L").resize(BLOCKS[::-1], Image.Resampling.BOX), dtype=float)/255


def distance(a: str, b: str) -> float:
    "How far two pictures are apart: the largest difference of two neighbouring blocks' mean, 0 for equal pictures."
    difference = blocks(a) - blocks(b)
    return float(np.abs(difference[:-1, :-1] + difference[1:, :-1] + difference[:-1, 1:] + difference[1:, 1:]).max()/4)


def value(number: str) -> float: return float(number.replace("−", "-").replace(",", ""))


def text_difference(stored: str, fresh: str, numbers: bool) -> str | None:
    "The first difference of two texts, or None."
    words, numerals = NUMBER.split(stored), NUMBER.findall(stored)
    if [" ".join(part.split()) for part in words] != [" ".join(part.split()) for part in NUMBER.split(fresh)]:
        return next((f"stores {a.strip()!r}, the run gives {b.strip()!r}" for a, b
                     in zip(stored.splitlines() + [""], fresh.splitlines() + [""]) if a != b), "more or fewer lines")
    for a, b in zip(numerals, NUMBER.findall(fresh)):
        if numbers and not np.isclose(value(a), value(b), rtol=RELATIVE, atol=ABSOLUTE):
            return f"stores the number {a}, the run gives {b}"
    return None


def figure_difference(stored: str, fresh: str) -> str | None:
    "The first difference of the data of two figures, or None."
    figures = json.loads(stored), json.loads(fresh)
    old_axes, new_axes = (figure["axes"] for figure in figures)
    if len(old_axes) != len(new_axes): return f"stores {len(old_axes)} axes, the run draws {len(new_axes)}"
    for old, new in (figures, *zip(old_axes, new_axes)):
        if found := text_difference(*("\n".join(data["words"]) for data in (old, new)), numbers=True): return found
    for old, new in zip(old_axes, new_axes):
        counts = [{kind: numbers[:2] for kind, numbers in data["drawn"].items()} for data in (old, new)]
        if counts[0] != counts[1]: return f"stores {counts[0]} (artists, places), the run draws {counts[1]}"
        if old["scales"] != new["scales"]: return f"stores {old['scales']} axes, the run draws {new['scales']}"
        ends = zip(np.reshape(old["limits"], (2, 2)), np.reshape(new["limits"], (2, 2)), old["scales"])
        for a, b, scale in ends:
            if scale == "log": a, b = np.log(a), np.log(b)
            if abs(a - b).max() > MOVED*np.ptp(a): return f"stores limits {old['limits']}, the run {new['limits']}"
        for kind, numbers in old["drawn"].items():
            far = np.abs(np.subtract(numbers[2:], new["drawn"][kind][2:])).max(initial=0)
            if far > MOVED: return f"a {kind} moved by {far:.3f} of the axes; {MOVED} is allowed"
    return None


def difference(stored: list, fresh: list, varies: bool = False) -> str | None:
    "What differs between a cell's stored outputs and those of a run, or None."
    if len(stored) != len(fresh): return f"stores {len(stored)} outputs, the run gives {len(fresh)}"
    for before, now in zip(stored, fresh):
        (kind, old), (new_kind, new) = shown(before), shown(now)
        data = [output.get("data", {}).get(KIND) for output in (before, now)]
        if kind != new_kind: return f"stores {kind}, the run gives {new_kind}: {new[:200]!r}"
        if kind != "image/png":
            if found := text_difference(old, new, numbers=not varies): return f"{found} ({kind})"
        elif data[0] and not data[1]: return "stores the data of a figure, the run gives none"
        elif data[0]:
            if found := None if varies else figure_difference(*data): return f"{found} (figure)"
        elif not varies and (far := distance(old, new)) > FAR:
            return f"the stored picture differs from the run's by {far:.3f}; {FAR} is allowed"
    return None


@cache
def processor() -> str:
    "What decides how a training rounds: the kind of processor and the version of PyTorch."
    import torch
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model\s*:\s*(\d+)", info.read_text() if info.exists() else "", re.MULTILINE)
    release = ".".join(torch.__version__.split(".")[:2])
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {model[1] if model else ''} {capability}, torch {release}"


def is_from_here(nb) -> bool:
    "Are this notebook's numbers to be had on this processor? Where nothing says `train` they are to be had everywhere."
    trains = any(re.search(r"\btrain", cell.source) for cell in nb.cells if cell.cell_type == "code")
    return not trains or nb.metadata.get("processor") == processor()


def execute(path: Path, **options):
    """The notebook as stored, its outputs from a run of now, and the error that stopped it, if one did.

    `options` are those of `NotebookClient`.
    """
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.from_dict(stored)
    for cell in fresh.cells:
        if cell.cell_type == "code" and is_skipped(cell): cell.cell_type = "raw"
    begin = f"__import__('runpy').run_path({str(Path(__file__).with_name('figure_data.py'))!r})['load'](get_ipython())"
    client = NotebookClient(fresh, timeout=None, startup_timeout=600, kernel_name="python3",
                            extra_arguments=["--log-level=ERROR", f"--InteractiveShellApp.exec_lines={[begin]!r}"],
                            resources={"metadata": {"path": str(path.parent)}},
                            coalesce_streams=True,   # on a busy machine what one cell prints comes in pieces
                            **options)
    inline = {"MPLBACKEND": forked_kernels.BACKEND}  # figures are outputs, whatever is set outside
    try: client.execute(env=os.environ | inline)
    except CellExecutionError as error: return stored, fresh, str(error)
    return stored, fresh, None


def check(path: Path, store: bool = False, **options) -> list[str]:
    "Execute a notebook and report what is wrong with it: an error, or outputs that are not those of the run."
    start, name = time.perf_counter(), os.path.relpath(path, ROOT)
    stored, fresh, error = execute(path, **options)
    if error: return [f"{name}: {error}"]
    found, here = [], is_from_here(stored)
    for old, new in zip(stored.cells, fresh.cells):
        if new.cell_type != "code": continue
        if any(str(ROOT) in content for _, content in map(shown, new.outputs)):
            found.append(f"{name}, cell {old.id}: shows {ROOT}, which no other machine has")
        what = None if store else difference(old.outputs, new.outputs, not here or "varies" in directives(old.source))
        if what: found.append(f"{name}, cell {old.id}: {what}\n    {old.source.strip().splitlines()[-1]}")
        old.outputs, old.execution_count = new.outputs, new.execution_count
    if store:
        stored.metadata["processor"] = processor()
        nbformat.write(stored, path)
    elsewhere = stored.metadata.get("processor", "an unknown processor")
    note = "" if here or store else f"  (from {elsewhere}: only words are compared)"
    print(f"{time.perf_counter() - start:5.0f} s  {name}{note}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--store", action="store_true", help="store the outputs of this run instead of comparing them")
    parser.add_argument("--workers", type=int, default=min(8, max(2, os.cpu_count() or 2)))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = forked_kernels.prepare()
    # the experiments take longest: they come first, so that the workers end together
    notebooks = arguments.notebooks or sorted((ROOT/"nbs").rglob("[0-9i]*.ipynb"), key=lambda path: path.name,
                                              reverse=True)
    with ThreadPoolExecutor(arguments.workers) as pool:
        each = pool.map(lambda path: check(path, arguments.store, **options), notebooks)
        found = [line for lines in each for line in lines]
    for line in found: print(line, file=sys.stderr)
    if found: print("\nwhere the run is right, store its outputs: make notebooks NOTEBOOKS=\"nbs/…\"", file=sys.stderr)
    print(f"{len(notebooks)} notebooks ran" + ("" if found else ", and store what they show"))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
