#!/usr/bin/env python3
"""The command line's entry: `python run_bench.py --help`."""

from harness.cli import main

if __name__ == "__main__":
    main()
