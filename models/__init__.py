"""What is measured: networks, their weights, pruning, fine-tuning and conversion to Core ML.

The lowest room: nothing here knows suites, records or the command line, and nothing above it is imported.
"""
