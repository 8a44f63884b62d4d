# Every command of the project. Each works as the first one ever run in a fresh clone; what it needs is
# Linux x86_64 with Python 3.11+ (with venv), pip, make, git, and libgl1 libglib2.0-0 libxcb1.
#
# Another Python:           make PYTHON=python3.13 serve
# Options for pytest:       make test PYTEST_ARGS="-k archive -x"
# Tests at once:            make test TEST_WORKERS=2; three for two cores, since many wait for other processes

PYTHON       ?= python3
PYTEST_ARGS  ?=
TEST_WORKERS ?= 3
UV           ?= uv==0.13.8

BIN      := .venv/bin
PACKAGES := app worker detection
PYTEST   := $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# The same text in any locale, and the same order of sorting.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help serve demo test coverage lint format bench bench-peers openapi lock install install-dev clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

serve: install  ## start everything on this machine and print its address; Ctrl-C stops it
	@$(BIN)/harrier serve

demo: install  ## make a small dataset, train on it, detect, and show how well it went
	@$(BIN)/harrier demo

test: install-dev  ## run the whole test suite
	@$(PYTEST) $(PYTEST_ARGS)

coverage: install-dev  ## run it and count the lines of ours that were executed, which takes half as long again
	@$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=90 $(PYTEST_ARGS)

lint: install-dev  ## check format, style, types, imports and dependencies
	@$(BIN)/ruff format --check --quiet . || { echo "make format puts these files right"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry $(PACKAGES)

format: install-dev  ## format the code and apply the safe fixes of ruff
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-peers: install-dev  ## install the servers that `make bench` compares with, below .venv-peers
	@$(BIN)/python -m tests.benchmarks.peers.install

bench: install-dev  ## measure speed, and how well trainings learn; writes build/benchmarks/*.json
	@$(BIN)/python -m pytest -m benchmark --timeout=0 -s tests/benchmarks $(PYTEST_ARGS)

openapi: install  ## write the API's description to docs/openapi.json
	@$(BIN)/python -m app.api.openapi > docs/openapi.json.new
	@mv docs/openapi.json.new docs/openapi.json

lock: .venv-lock/bin/uv  ## compile requirements*.lock anew from pyproject.toml
	@.venv-lock/bin/uv $(COMPILE) --extra postgres --extra s3 --output-file requirements.lock pyproject.toml
	@.venv-lock/bin/uv $(COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock

# One lock for every platform and Python, with hashes and without the address of any index.
COMPILE = pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links $(LOCK_ARGS)

.venv-lock/bin/uv: Makefile
	@echo "harrier: installing $(UV) into .venv-lock"
	@$(PYTHON) -m venv --clear .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	@touch $@

install:
	@$(PYTHON) tools/install.py requirements.lock

install-dev:
	@$(PYTHON) tools/install.py requirements.lock requirements-dev.lock

clean:  ## remove what was built or installed here; .harrier, with your data, stays
	rm -rf .venv .venv-lock .venv-peers build dist htmlcov *.egg-info
	rm -rf .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
