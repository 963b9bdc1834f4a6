"""`run_bench.py` with the tiny network: for schedulers, workers and clients that are processes of their own."""

from coreml_prune_bench.cli.app import main
from tests import tiny_network  # noqa: F401

if __name__ == "__main__":  # workers import this file too
    main()
