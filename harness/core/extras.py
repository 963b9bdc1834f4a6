"""What the base installation leaves out, and which extra of the project brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from coreml_prune_bench.core.errors import BenchError

EXTRAS = {
    "torch": "build",
    "torchvision": "build",
    "scikit-learn": "digits",  # `build` brings it too, and asks for torch first
    "sklearn": "digits",
    "dask": "cluster",
    "distributed": "cluster",
    "cryptography": "cluster",
    "datasets": "hub",
    "huggingface-hub": "hub",
    "huggingface_hub": "hub",
    "timm": "timm",
    "altair": "charts",
    "vl_convert": "charts",
    "fsspec": "remote",
    "mlflow-skinny": "mlflow",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
"""The extra by what is missing: the name of a distribution, or the one that it is imported by."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Inside the block, or the function that this decorates, what an extra would bring is a BenchError that names it.

    Any other ModuleNotFoundError passes. The one of a distribution's version, PackageNotFoundError, is one too.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise BenchError(
            f"this needs {missing}, which the base installation leaves out: "
            f"pip install 'coreml-prune-bench[{EXTRAS[missing]}]'"
        ) from error
