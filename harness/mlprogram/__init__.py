"""The ML program format: reading a `.mlpackage`, its compressed weights, and what it holds. Runs nothing."""
