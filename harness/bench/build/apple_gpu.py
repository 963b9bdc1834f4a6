"""Whether Apple's GPU is fit to train on here: found out once for a version of torch and of the operating system."""

import json
import platform

import torch

from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.core.progress import warn
from coreml_prune_bench.models import mps


def is_right() -> bool:
    """Whether batches arrive there bit by bit and a training step is the CPU's; remembered in the cache folder.

    Where it is not, or the check itself fails, that is said once, and training takes the CPU.
    """
    where = {"os": platform.version(), "torch": torch.__version__}
    path = cache_folder() / "apple-gpu" / f"{key_of(where)[:16]}.json"
    if not path.is_file():
        try:
            found = mps.examine()
            told: dict[str, object] = {"right": found.right, "copied": found.copied, "trained": found.trained}
        except RuntimeError as error:  # an operation that is not there, or memory that is not
            told = {"right": False, "error": " ".join(str(error).split())}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(where | told))
        if not told["right"]:
            warn(f"Apple's GPU does not compute here what the CPU does ({told}): training takes the CPU; see {path}")
    return bool(json.loads(path.read_text())["right"])
