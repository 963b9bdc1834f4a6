"""For `multiprocessing.set_forkserver_preload`: what a scripted Mac needs, imported once."""

from coreml_prune_bench.testing.system import preload

preload()
