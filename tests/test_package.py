"""The package: one version, a command without a path, types, and distributions that install and run without this
folder.
"""
import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from test_readme import EXAMPLES, check_table, users_files  # noqa: F401, a fixture

import subspace_match

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(subspace_match.__file__).parent
CHECKOUT = pytest.mark.skipif(not (ROOT/".git").exists(), reason="needs a clone")


def settings():
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def test_one_version():
    version = settings()["version"]
    assert subspace_match.__version__ == version
    assert f"\n## {version}" in (ROOT/"CHANGELOG.md").read_text(encoding="utf-8")
    assert yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))["version"] == version


def test_the_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["subspace_match", "--version"])
    with pytest.raises(SystemExit) as end: runpy.run_module("subspace_match", run_name="__main__")
    assert not end.value.code and capsys.readouterr().out == f"subspace-match {subspace_match.__version__}\n"


def test_what_is_imported_is_required():
    "Every third-party module that the library imports belongs to a requirement, and every requirement is imported."
    roots = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import): roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level: roots.add(node.module.split(".")[0])
    known = packages_distributions()
    imported = {known[root][0].lower()
                for root in roots - set(sys.stdlib_module_names) - {"subspace_match"} if root in known}
    required = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in settings()["requirements"].split()}
    optional = {"ase", "h5py", "zarr", "transformers", "pyyaml"}          # imported where they are asked for
    assert required <= imported | {"pot"} and imported <= required | optional, required ^ imported


def test_the_floor_of_python_is_the_oldest_that_is_run():
    workflow = (ROOT/".github/workflows/tests.yml").read_text(encoding="utf-8")
    pythons = settings()["pythons"].split()
    assert settings()["min_python"] == pythons[0]
    assert yaml.safe_load(workflow)["jobs"]["tests"]["strategy"]["matrix"]["python"] == pythons


def test_contributing_names_targets_that_exist():
    makefile = (ROOT/"Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)", (ROOT/"CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert {"setup", "test", "lint", "notebooks"} <= targets
    assert not {target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    "The sdist of the files that git knows, or would, and the wheel that is built from it; without network."
    folder = tmp_path_factory.mktemp("package")
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        if name.startswith(("nbs/", "results/", "docs/")) or not (ROOT/name).exists(): continue
        (folder/"copy"/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, folder/"copy"/name)
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder/"dist", folder/"copy"],
                   check=True,
                   capture_output=True, env=without_path())
    return sorted((folder/"dist").iterdir())


def without_path():
    "The environment of this process without the paths that lead to this clone."
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@CHECKOUT
def test_the_distributions_are_fit_for_an_index(distributions):
    "Names, metadata, and a description that an index can show."
    assert [path.suffix for path in distributions] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *distributions], check=True,
                   capture_output=True)


def install(distribution, python, *options):
    "Install it without network; its requirements are there."
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                    "--offline", "--python", python, *options, distribution], check=True, env=without_path())


@CHECKOUT
def test_the_wheel_runs_the_readme_in_an_empty_environment(distributions, users_files, tmp_path):
    """An environment that has the requirements, as they are installed here, and nothing else of this clone.

    So nothing is downloaded; that the requirements resolve is what the workflows show.
    """
    venv.create(tmp_path/"env", symlinks=os.name != "nt")
    inside = sysconfig.get_paths(vars={"base": str(tmp_path/"env"), "platbase": str(tmp_path/"env")}, scheme="venv")
    (Path(inside["purelib"])/"requirements.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    python = Path(inside["scripts"])/Path(sys.executable).name
    if not python.exists(): python = Path(inside["scripts"])/("python.exe" if os.name == "nt" else "python")
    install(distributions[0], python)
    origin = "import subspace_match, pathlib; print(pathlib.Path(subspace_match.__file__).parent)"
    command = Path(inside["scripts"])/("subspace-match.exe" if os.name == "nt" else "subspace-match")
    asked = f"import subprocess; subprocess.run([{str(command)!r}, '--version'], check=True)"
    program = "\n".join([origin, *EXAMPLES, asked])
    done = subprocess.run([python, "-W", "ignore", "-c", program], cwd=users_files, capture_output=True, text=True,
                          env=without_path() | {"MPLBACKEND": "Agg"})
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == f"subspace-match {subspace_match.__version__}"
    place = Path(said[0])
    assert place.is_relative_to(tmp_path) and (place/"py.typed").exists()
    check_table(users_files, "layer1.0.relu", layers=18)


@CHECKOUT
def test_the_sdist_installs_what_the_wheel_does(distributions, tmp_path):
    "Every module byte by byte, and the same metadata, so what the wheel runs the sdist runs."
    install(distributions[1], sys.executable, "--target", tmp_path/"sdist")
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith(("/RECORD", "/WHEEL"))}
        assert not {name for name in names if wheel.read(name) != (tmp_path/"sdist"/name).read_bytes()}
    installed = {path.relative_to(tmp_path/"sdist").as_posix() for path in (tmp_path/"sdist").rglob("*.*")
                 if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in installed if name.endswith(".py")} == {name for name in names if name.endswith(".py")}
    assert "subspace_match/py.typed" in names and any(name.endswith("/METADATA") for name in names)


@CHECKOUT
def test_the_description_has_no_relative_links(distributions):
    with zipfile.ZipFile(distributions[0]) as wheel:
        metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
        assert not any(name.startswith(("tests/", "nbs/")) for name in wheel.namelist())
    links = re.findall(r"\]\(([^)]+)\)", metadata)
    assert len(links) > 20 and all(link.startswith("https://") for link in links)
    assert "Project-URL: Source" in metadata and "Programming Language :: Python :: 3.12" in metadata
