#!/usr/bin/env python3
"""The command line from a checkout: `python run_bench.py --help` does what `coreml-prune-bench --help` does."""

import sys
from pathlib import Path

# A user's own `models` or `harness` must be found, not the folders beside this file.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != _HERE]

try:
    from coreml_prune_bench.cli.app import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed here: run `make setup`, then .venv/bin/python run_bench.py")

if __name__ == "__main__":
    main()
