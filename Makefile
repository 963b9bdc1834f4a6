# `make bench` runs the main job on embedded data, `make test` the tests. Both set up .venv first; nothing else is needed.
.PHONY: help setup bench test test-slow lint benchmark conformance clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help:
	@echo "make setup      .venv with everything pinned in pyproject.toml (quick when nothing changed)"
	@echo "make bench      the main job on embedded digits: prune, convert, evaluate, print the table"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make lint       ruff, mypy and the import contracts"
	@echo "make benchmark  speed, as ratios taken in one run"
	@echo "make conformance  coremltools' tests of operations and torchvision's networks over the portable runtime (an hour)"

setup: $(VENV)/.installed

# uv if it is there or can be had, plain pip otherwise: the same packages, minutes apart.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null; then \
	  uv pip install --quiet --python $(BIN)/python --editable '.[dev]'; \
	elif $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	fi
	@touch $@

bench: setup
	@$(BIN)/python run_bench.py run

# Two processes of one thread each: on two cores 6 minutes instead of 10.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: setup
	$(BIN)/python -m pytest -m slow --log-cli-level=INFO

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: setup
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -m ''

MIL_TESTS := coremltools.converters.mil.mil.ops.tests
conformance: setup
	$(BIN)/python -m pytest -q -p no:cacheprovider -p tests.runtimes.portable.coremltools_conformance -W ignore \
	  --pyargs $(foreach version,iOS14 iOS15 iOS16 iOS17 iOS18,$(MIL_TESTS).$(version))
	$(BIN)/python -m tests.runtimes.portable.zoo

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
