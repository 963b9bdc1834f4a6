"""What every room uses: errors, whole files, keys, progress. Knows nothing of pruning."""
