"""Many machines: the cells of one suite as tasks of Dask, which brings the scheduler, the workers and TLS."""
