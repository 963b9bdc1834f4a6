"""What is to be measured, and measuring it: suites, cells, building packages, checking them, resuming."""
