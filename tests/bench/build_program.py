"""Builds the packages of a suite of the tiny network: python -m ... SUITE RESULTS."""

import sys
from pathlib import Path

import tests.tiny_network  # noqa: F401  (registers the network)
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, build_all
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.records.store import Store

if __name__ == "__main__":
    suite, results = sys.argv[1:]
    _, problems = build_all(lay_out(load_suite(suite), None), RunOptions(Store(Path(results))))
    sys.exit("\n".join(problems))
