"""Imports point one way, what is slow to import waits, and the paths of version 0.1 still lead somewhere."""
import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from processes import finished, python

import subspace_match
from subspace_match._moved import MOVED, PLACES

PACKAGE = Path(subspace_match.__file__).parent
FLOORS = ("theory", "algorithms", "networks", "experiments", "cli")


def imported(path: Path):
    "Full names of the modules of this package that the file imports, wherever the import stands in it."
    here = ("subspace_match", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*here[:len(here) - node.level],
                             *filter(None, [node.module]))) if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names]
        else: continue
        yield from (name for name in names if name.split(".")[0] == "subspace_match")


def floor(module: str) -> int | None:
    "The number of the floor that a module stands on; None for the roof (`subspace_match` itself)."
    part = (*module.split("."), "")[1]
    return FLOORS.index(part) if part in FLOORS else None


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    own = floor(".".join(("subspace_match", *path.relative_to(PACKAGE).with_suffix("").parts)))
    if own is None: return
    above = [name for name in imported(path) if (floor(name) or 0) > own]
    assert not above, f"{path.name} stands on the floor {FLOORS[own]} and imports {above}"


def test_every_folder_is_a_floor():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()
            and path.name != "__pycache__"} == set(FLOORS) - {"cli"}


def test_what_is_slow_to_import_waits_until_it_is_needed():
    modules = ("", ".algorithms.simple", ".theory.reference", ".theory.counterexamples", ".networks.comparison", ".cli")
    names = ", ".join("subspace_match" + module for module in modules)
    slow = {"torchvision", "scipy.stats", "sklearn", "seaborn", "matplotlib"}
    code = f"import {names}, sys; found = {slow} & {{*sys.modules}}; assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_only_matches_does_not_wait_for_pandas():
    "Nor do the processes that share a search."
    code = """import subspace_match.algorithms.simple, sys; assert "pandas" not in sys.modules
from subspace_match import compare; assert "pandas" in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_come_later_are_listed_and_others_are_missed():
    assert {"compare", "Comparison", "list_layers", "minimal_matches"} <= set(dir(subspace_match))
    with pytest.raises(AttributeError, match="no attribute 'comparison_of'"): _ = subspace_match.comparison_of


def test_public_names():
    assert all(hasattr(subspace_match, name) for name in subspace_match.__all__)
    assert {"Match", "is_match", "relative_distance", "Geometry", "maximum_match", "match_levels", "minimal_match",
            "minimal_matches", "all_minimal_matches", "simple_matches", "sample_simple_matches", "pair_matches",
            "compare",
            "Comparison"} <= set(subspace_match.__all__)


@pytest.mark.parametrize("old, new", PLACES.items())
def test_old_paths_lead_to_the_same_module_and_say_so(old, new):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}") as caught: module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert len(caught) == 1


def test_the_warning_names_the_line_that_imports(tmp_path):
    (tmp_path/"theirs.py").write_text("import math\nimport subspace_match.geometry\nfrom subspace_match import match\n")
    code = ("import sys, warnings; warnings.filterwarnings('always', category=DeprecationWarning, module='theirs'); "
            "sys.path.insert(0, sys.argv[1]); import theirs")
    assert finished(python(code, tmp_path, output=tmp_path/"said")) == 0
    said = (tmp_path/"said").read_text(encoding="utf-8")
    assert "theirs.py:2: DeprecationWarning" in said and "theirs.py:3: DeprecationWarning" in said


def test_names_of_the_old_module_experiments():
    from subspace_match import experiments
    with pytest.warns(DeprecationWarning, match="pieces.read_table"):
        assert experiments.read_table is experiments.pieces.read_table
    with pytest.raises(AttributeError): experiments.nothing
    assert set(MOVED) == set(FLOORS) - {"cli"}


def defined(path: Path) -> set[str]:
    "The public functions, classes and constants that a module defines."
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): found.add(node.name)
        if isinstance(node, ast.Assign): found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def test_a_name_means_one_thing():
    "No public name of theory or algorithms, and none of the package, is defined in a second module."
    modules = {path: defined(path) for path in PACKAGE.rglob("*.py") if path.name not in ("_modidx.py", "__init__.py")}
    guarded = set(subspace_match.__all__).union(*(names for path, names in modules.items()
                                                  if path.parent.name in ("theory", "algorithms")))
    twice = {name for name in guarded if sum(name in names for names in modules.values()) > 1}
    assert "literal_maximum_match" in guarded and not twice


def test_old_names_of_the_literal_algorithms_warn():
    from subspace_match.theory import reference
    with pytest.warns(DeprecationWarning, match="now literal_maximum_match"):
        assert reference.maximum_match is reference.literal_maximum_match
    with pytest.raises(AttributeError): reference.no_such_name
