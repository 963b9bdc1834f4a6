# `make bench` runs the main job on embedded data, `make test` the tests. Both set up .venv first; nothing else is needed.
.PHONY: help setup bench test test-slow test-macos lint benchmark conformance conformance-mac conformance-coreai bounds test-versions lock clean
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin

help:
	@echo "make setup      .venv with everything as constraints.txt has it (quick when nothing changed); PYTHON=... says whose"
	@echo "make bench      the main job on embedded digits: prune, convert, evaluate, print the table"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-macos  the tests as on a Mac, on the stand-in"
	@echo "make lint       ruff, mypy and the import contracts"
	@echo "make benchmark  speed, as ratios taken in one run"
	@echo "make conformance  coremltools' tests of operations and torchvision's networks over the portable runtime (an hour)"
	@echo "make conformance-mac  coremltools' tests that need macOS, over the stand-in (minutes)"
	@echo "make conformance-coreai  torch's operations through Apple's converter for Core AI over the portable runtime (10 minutes)"
	@echo "make bounds     time and memory of 3,000 damaged packages and 35 that mean harm (20 minutes)"
	@echo "make test-versions  a part of the tests at both ends of the ranges in pyproject.toml (10 minutes)"
	@echo "make lock       constraints.txt anew, keeping what still fits the ranges"

setup:
	@PYTHON="$(PYTHON)" tools/setup.sh

bench: setup
	@$(BIN)/coreml-prune-bench run

# Two processes of one thread each: on two cores 6 minutes instead of 10.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow -rs --log-cli-level=INFO

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

# coremltools' own tests that need macOS, on the stand-in for its native module.
MAC_TESTS := ml_program.experimental.test_perf_utils ml_program.experimental.test_compute_plan_utils \
  ml_program.experimental.test_async_wrapper ml_program.experimental.test_remote_device ml_program.test_utils \
  modelpackage.test_modelpackage modelpackage.test_mlmodel api.test_api_visibilities
# The tests of this process as on a Mac; those that need one, or Linux, are listed in the plugin.
test-macos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -p tests.on_macos

conformance-mac: setup
	$(BIN)/python -m pytest -q -p no:cacheprovider -p tests.runtimes.coremltools_on_a_mac -W ignore -m '' \
	  --pyargs $(addprefix coremltools.test.,$(MAC_TESTS))

# Needs coreai-core and coreai-torch.
conformance-coreai: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.runtimes.portable.coreai.conformance

bounds: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.runtimes.portable.bounds

# uv alone can ask for the lowest versions. `highest` is what a user gets today, constraints.txt what the tests get.
UV = $(or $(shell command -v uv),$(BIN)/uv)
SHORT := tests/core tests/records tests/report tests/gating tests/mlprogram tests/cli tests/models/test_own.py \
  tests/models/test_pruning.py tests/data/test_hub.py tests/runtimes/test_portable_session.py
test-versions: setup
	@for resolution in lowest-direct highest; do \
	  echo "== $$resolution" && \
	  $(BIN)/python -m venv --clear --without-pip build/$$resolution && \
	  $(UV) pip install --quiet --python build/$$resolution/bin/python --resolution $$resolution --editable '.[dev]' && \
	  OMP_NUM_THREADS=1 build/$$resolution/bin/python -m pytest -q -n 2 $(SHORT) || exit 1; \
	done

# For every platform and Python of the range; no index is named in it. `make lock UPGRADE=--upgrade` takes the newest.
lock: setup
	$(UV) pip compile --quiet --universal --all-extras --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  $(UPGRADE) --output-file constraints.txt pyproject.toml

clean:
	rm -rf build $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
