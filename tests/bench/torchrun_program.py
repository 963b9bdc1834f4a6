"""`run_bench.py` with the tiny network, for `test_torchrun.py`: torchrun starts files."""

from coreml_prune_bench.cli.app import main
from tests import tiny_network  # noqa: F401

main()
