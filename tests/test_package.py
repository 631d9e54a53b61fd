"""The package: one version, a command without a path, types for type checkers, nothing missing from what is published."""
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import subspace_match

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(subspace_match.__file__).parent


def settings():
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def test_one_version():
    version = settings()["version"]
    assert subspace_match.__version__ == version and f"\n## {version}" in (ROOT/"CHANGELOG.md").read_text(encoding="utf-8")


def test_the_module_is_the_command():
    asked = subprocess.run([sys.executable, "-m", "subspace_match", "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout == f"subspace-match {subspace_match.__version__}\n"


def test_it_says_that_it_is_typed(): assert (PACKAGE/"py.typed").exists()
