"""Damaged `.aimodel` programs: each one runs or is refused in one line that names it. No crash, no hang.

Their hashes are made right again, so that Apple's reader gets to see them.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.mlprogram.named import BYTECODE
from tests.aimodel.packages import classifier, from_text, graph, stamped
from tests.runtimes.portable.attempts import Attempt, Attempts
from tests.runtimes.portable.bounds import MEBIBYTES, changed

FEW = 4
EXAMPLES = [
    pytest.param(FEW, id="few"),
    pytest.param(int(os.environ.get("FUZZ_EXAMPLES", "500")), id="many", marks=pytest.mark.slow),
]
_X = "tensor<4xf32>"


def small_classifier(path: Path) -> Path:
    """Weights in the program's text, in resources, and sparse."""
    draw = np.random.default_rng(0)
    linear = draw.normal(size=(8, 12)) * (draw.random((8, 12)) < 0.5)
    return classifier(path, draw.normal(size=(8, 3, 3, 3)), linear, "float16")


def program_of_graphs(path: Path) -> Path:
    """Graphs that are invoked, branches in each other, a splat."""
    unary = f"({_X}) -> {_X}"
    inner = graph(f"%a = coreai.relu %x : {unary}\n%y = coreai.tanh %a : {_X} -> {_X}", "inner", kind="private")
    outer = graph(
        f"""%a = coreai.invoke @inner(%x) : {unary}
        %c = coreai.constant dense<true> : tensor<i1>
        %d = coreai.constant dense<[1.0, 2.0, 3.0, 4.0]> : {_X}
        %e = coreai.constant dense<0.5> : {_X}
        %h = coreai.constant dense<2.0> : tensor<f32>
        %s = coreai.constant dense<[2, 2]> : tensor<2xui32>
        %f = coreai.constant dense<[4]> : tensor<1xui32>
        %t = coreai.constant dense<[1, 0]> : tensor<2xui32>
        %r = coreai.reshape %a, %s : ({_X}, tensor<2xui32>) -> tensor<2x2xf32>
        %u = coreai.transpose %r, %t : (tensor<2x2xf32>, tensor<2xui32>) -> tensor<2x2xf32>
        %v = coreai.reshape %u, %f : (tensor<2x2xf32>, tensor<1xui32>) -> {_X}
        %w = coreai.decomposable.broadcasting_mul %v, %h : ({_X}, tensor<f32>) -> {_X}
        %b = coreai.decomposable.broadcasting_add %w, %d : ({_X}, {_X}) -> {_X}
        %y = coreai.decomposable.broadcasting_maximum %b, %e : ({_X}, {_X}) -> {_X}"""
    )
    return from_text(path, inner + outer)


PROGRAMS: dict[str, Callable[[Path], Path]] = {"classifier": small_classifier, "graphs": program_of_graphs}


@pytest.mark.parametrize("program", [pytest.param("classifier", marks=pytest.mark.slow), "graphs"])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_changed_bytes(program: str, examples: int, tmp_path: Path) -> None:
    package = PROGRAMS[program](tmp_path / "m.aimodel")
    content = (package / BYTECODE).read_bytes()
    attempts = Attempts()
    found: list[Attempt] = []
    try:
        assert attempts.outcome(package) == "ran"
        for mutated in damaged(content, examples):
            (package / BYTECODE).write_bytes(mutated)
            found.append(attempts.attempt(stamped(package)))
            if not _is_well(found[-1]):
                shutil.copytree(package, tmp_path / f"{len(found)}.aimodel")
    finally:
        attempts.close()
    kinds = Counter(_kind(attempt.outcome) for attempt in found)
    seconds, own, reader = (
        max(getattr(attempt, name) for attempt in found) for name in ("seconds", "mebibytes", "children_mebibytes")
    )
    logging.getLogger(__name__).info(
        "%s: %s; at most %.1f s, and %.0f MiB beside the imports; a process of Apple's reader, which begins as a copy "
        "of this one, %.0f MiB", program, dict(kinds), seconds, own, reader,
    )  # fmt: skip
    assert not [(tmp_path / f"{k}.aimodel", a) for k, a in enumerate(found, 1) if not _is_well(a)]


def damaged(content: bytes, count: int) -> Iterator[bytes]:
    """So many, half of them one byte that is another: of those the reader gets through the more often."""
    yield from changed(content, fields=False, count=count // 2, which=len(content))
    draw = np.random.default_rng(len(content))
    for _ in range(count - count // 2):
        mutated = bytearray(content)
        mutated[draw.integers(len(content))] ^= draw.integers(1, 256)
        yield bytes(mutated)


def _is_well(attempt: Attempt) -> bool:
    bounded = max(attempt.mebibytes, attempt.children_mebibytes) < MEBIBYTES
    return bounded and _kind(attempt.outcome) in ("ran", "refused", "refused: a signal ended Apple's reader")


def _kind(outcome: str) -> str:
    kind = outcome.partition(":")[0]
    return f"{kind}: a signal ended Apple's reader" if "was ended by SIG" in outcome else kind
