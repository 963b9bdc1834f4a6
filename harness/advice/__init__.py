"""Which algorithm and config a network takes, found by measuring."""
