#!/usr/bin/env python3
"""The command line's entry: `python run_bench.py --help`."""

import sys

try:
    from harness.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed here: run `make setup`, then .venv/bin/python run_bench.py")

if __name__ == "__main__":
    main()
