"""What was measured, as it is kept: schemas, reading and writing, and the statistics of records."""
