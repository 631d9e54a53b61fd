"""Fail, naming the files, where cleaning and exporting the notebooks would change the working tree, or widgets are
stored.

Works on a copy, so that the check itself never changes the tree; a module without a notebook is noticed as well.
"""
import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HAND_WRITTEN = {"__init__.py", "__main__.py", "_moved.py"}


def files(root: Path) -> set[Path]:
    "The notebooks and modules below `root`, relative to it."
    found = [*root.glob("nbs/**/*.ipynb"), *root.glob("subspace_match/**/*.py")]
    return {path.relative_to(root) for path in found if ".ipynb_checkpoints" not in path.parts}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)/"copy"
        for path in files(ROOT) | {Path(name) for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md")}:
            if path.parts[0] == "subspace_match" and path.name not in HAND_WRITTEN: continue
            (copy/path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT/path, copy/path)
        for tool in ("nbdev_clean", "nbdev_export"): subprocess.run([tool], cwd=copy, check=True)
        before, after = files(ROOT), files(copy)
        different = sorted(path for path in before & after if not filecmp.cmp(ROOT/path, copy/path, shallow=False))
        for path in different: print(f"out of step: {path}")
        for path in sorted(before - after): print(f"exported by no notebook: {path}")
        for path in sorted(after - before): print(f"not exported yet: {path}")
        widgets = sorted(path for path in before if path.suffix == ".ipynb"
                         and "widgets" in json.loads((ROOT/path).read_text(encoding="utf-8"))["metadata"])
        for path in widgets: print(f"stores the state of widgets (delete metadata.widgets): {path}")
        if widgets: return 1
        if different or before != after:
            print("run `nbdev_clean` and `nbdev_export`, and commit notebooks and modules together")
            return 1
    tracked = subprocess.run(["git", "status", "--porcelain", "--", "nbs", "subspace_match"], cwd=ROOT,
                             capture_output=True, text=True)
    if tracked.stdout: print(f"not committed (a reminder, not an error):\n{tracked.stdout}", end="")
    print(f"{len(after)} files are clean and in step")
    return 0


if __name__ == "__main__":
    sys.exit(main())
