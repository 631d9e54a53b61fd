# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
# The hidden file stands for an environment that is up to date with settings.ini.
READY  := .venv/.ready
MATHJAX := .venv/mathjax/node_modules/mathjax/package.json
BIN    := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# What is imported is compiled once, whatever is set outside: without bytecode each process compiles the libraries anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup reproduce test lab lint sync-check notebooks-check pytest notebooks docs benchmark

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## create .venv and install the library with its development tools

$(READY): settings.ini setup.py pyproject.toml
	@echo "== set-up: .venv (about 5 GB; once) =="
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[dev]"
	@touch $@

reproduce: $(READY)  ## the main job: train on the bundled digits, compare all pairs at all layers, draw
	subspace-match reproduce

lab: $(READY)  ## open the notebooks in JupyterLab
	jupyter lab nbs

# The first three keep one core busy, the others all. The site needs npm, for MathJax; where there is none the tests of
# the site say that they are skipped.
test: $(READY)  ## everything that continuous integration runs
	+$(MAKE) --no-print-directory -j 2 $(if $(shell command -v npm),docs) lint sync-check
	+$(MAKE) --no-print-directory notebooks-check
	+$(MAKE) --no-print-directory pytest

lint: $(READY)  ## ruff and mypy
	@echo "== ruff and mypy =="
	ruff check .
	mypy

sync-check: $(READY)  ## notebooks are clean and exported: running the tools changes nothing
	@echo "== notebooks are clean and in step with the library =="
	python tests/check_sync.py

notebooks-check: $(READY)  ## execute every notebook, and compare what it shows with what it stores
	@echo "== notebooks run, and store what they show =="
	python tests/check_notebooks.py

pytest: $(READY)  ## the test suite, a process for each core
	@echo "== tests =="
	OMP_NUM_THREADS=1 python -m pytest -q -rs -n logical --maxprocesses 8 --dist loadgroup tests

notebooks: $(READY)  ## execute notebooks again and store their outputs (NOTEBOOKS="nbs/theory/*.ipynb" for some)
	python tests/check_notebooks.py --store $(NOTEBOOKS)
	nbdev_clean
	nbdev_export

docs: $(READY) $(MATHJAX)  ## build the site from the notebooks' stored outputs, into _docs/html
	@echo "== the site =="
	python docs/build.py

$(MATHJAX): | $(READY)
	@command -v npm >/dev/null || { echo "npm is missing; it fetches MathJax, which the site brings along"; exit 1; }
	npm install --silent --no-audit --no-fund --prefix .venv/mathjax mathjax@3.2.2

benchmark: $(READY)  ## measure the fast algorithms against the literal ones, into results/speed
	set -e; for profile in full threads parallel versions constants; do \
		python -m subspace_match.experiments.benchmark --profile $$profile; done
