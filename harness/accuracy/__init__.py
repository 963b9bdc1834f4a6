"""What packages predict: top-1 and top-5 over a data set, single predictions, two runtimes side by side."""
