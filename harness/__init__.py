"""Accuracy, size and latency of pruned Core ML models, measured on the final package."""

from coreml_prune_bench.models.quiet import quiet_coremltools

# Here, so that no module of the project can import coremltools before: off macOS it warns eight times.
quiet_coremltools()
