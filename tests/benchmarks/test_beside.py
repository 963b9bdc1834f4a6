"""Training and evaluation on an idle machine, beside one busy program, and beside as many as there are processors.

As OpenMP and ONNX Runtime have it by themselves against how this project has it, in processes that live through all of
it and take turns. It means something on a machine that is idle otherwise.

Never a timed test: `make benchmark` prints the ratios, nothing here asserts one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreml_prune_bench.models.processors import processors

ROOT = Path(__file__).parents[2]
WAYS = ("default", "ours")
SECONDS = 5
ROUNDS = 2
BUSY = [sys.executable, "-c", "while True: pass"]


@contextmanager
def other_programs(count: int) -> Iterator[None]:
    started = [subprocess.Popen(BUSY) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextmanager
def working(work: str, way: str) -> Iterator[subprocess.Popen[str]]:
    free = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-m", "tests.benchmarks.beside", work, way]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=free, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            answer(process)
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> float:
    assert process.stdout
    return float(process.stdout.readline())


def per_second(process: subprocess.Popen[str]) -> float:
    assert process.stdin
    process.stdin.write(f"{SECONDS}\n")
    process.stdin.flush()
    return answer(process)


@pytest.mark.parametrize("work", ["training", "evaluation"])
def test_beside_other_programs(benchmark, work: str) -> None:
    fastest: dict[int, dict[str, float]] = {count: dict.fromkeys(WAYS, 0.0) for count in (0, 1, len(processors()))}

    def measure() -> None:
        with working(work, "default") as default, working(work, "ours") as ours:
            for _ in range(ROUNDS):
                for count, found in fastest.items():
                    with other_programs(count):
                        for way, process in zip(WAYS, (default, ours), strict=True):
                            found[way] = max(found[way], per_second(process))

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(beside=work, busy={str(count): found for count, found in fastest.items()})
