"""From a cell to a saved package: the dense network, its pruning, training, checkpoints, and what was made."""
