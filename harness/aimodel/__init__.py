"""Core AI's `.aimodel`: read in a process of its own, and told in the words of an ML program."""
