"""The commands of `run_bench.py`, one module a subject. What they need is imported when they run: `--help` is quick."""
