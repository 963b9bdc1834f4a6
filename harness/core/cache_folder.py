"""Where this project keeps what it can make again."""

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "COREML_BENCH_CACHE"
"""Names another folder than the user's own cache."""


def cache_folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("coreml-prune-bench"))
