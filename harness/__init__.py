"""Measuring pruned Core ML models: suites, cells, building, accuracy, records and tables."""

from harness.quiet import quiet_coremltools

# Here, so that no module of the project can import coremltools before: off macOS it warns eight times.
quiet_coremltools()
