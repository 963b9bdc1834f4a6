"""Where people keep results: MLflow, Weights & Biases, a model card of the Hugging Face hub. From records alone.

A module each; what it writes to is imported when it is asked for, and is an extra of its own.
"""
