"""`program.py` on a scripted Mac, real time aside: a "Mac" that joins a cluster."""

import os
import tempfile
from dataclasses import replace

import distributed  # noqa: F401  (psutil, which it brings, asks which system this is)
import torch  # noqa: F401

from coreml_prune_bench.cli.app import main
from coreml_prune_bench.testing.lies import plausible
from coreml_prune_bench.testing.system import enter_with_real_time
from tests import tiny_network  # noqa: F401

_HOME = "TEST_MAC_HOME"

if __name__ in ("__main__", "__mp_main__"):
    home = os.environ.setdefault(_HOME, tempfile.mkdtemp(prefix="stand-in-"))
    enter_with_real_time(replace(plausible(home), mps="none"))

if __name__ == "__main__":
    main()
