"""The published table, its rows and its packages."""
