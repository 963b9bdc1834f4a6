"""A run against a baseline, and two packages against each other: verdicts, and the files they need."""
