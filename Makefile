# Needs Python 3.11 or newer (with its venv module) and make. Everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test slow format lint types check bench clean

help:                   ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */	/' | expand -t 12

# The stamp is touched last: a run that was interrupted begins again, one that is up to date costs nothing.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("EdgeKV needs Python 3.11 or newer: set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-bench: requirements-bench.lock .venv/installed
	$(BIN)/python -m pip install --quiet --requirement requirements-bench.lock
	@touch $@

demo: .venv/installed   ## real data at three sites, a link that is cut, a node that is killed, and a proof that nothing is lost
	@$(BIN)/edgekv demo

# Those of processes measure time and have the machine to themselves.
test: .venv/installed   ## the default tests
	$(BIN)/python -m pytest --ignore=tests/integration --numprocesses=2 --dist=worksteal
	$(BIN)/python -m pytest tests/integration

slow: .venv/installed   ## the tests that need minutes, root or other programs
	$(BIN)/python -m pytest -m slow --timeout=900

format: .venv/installed ## put the code into its format
	$(BIN)/ruff format .

lint: .venv/installed   ## format and lint, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed  ## mypy --strict
	$(BIN)/mypy

check: lint types test  ## all that a change must pass

bench: .venv/installed-bench ## every benchmark; results go to bench/results/
	$(BIN)/python -m bench

clean:                  ## remove what make made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
