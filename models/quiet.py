"""Keeps libraries from filling the terminal with what is not meant for the user of this project."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


def quiet_coremltools() -> None:
    """Let only coremltools' errors through: off macOS its import warns about every Apple library it cannot load."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    for chatty in ("layerwise_compression", "pruning"):  # a line a layer, and a warning about a rounded sparsity
        logging.getLogger(f"coremltools.optimize.torch.{chatty}").setLevel(logging.ERROR)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """No warnings and no libraries' progress bars inside the block; exceptions pass."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def unprinted() -> Iterator[None]:
    """Inside, what compiled code writes to standard output is lost: it stood in the middle of JSON and tables."""
    sys.stdout.flush()
    output = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)
