"""`make bounds`: how long packages of every kind of harm take, and how much memory. 20 minutes on one core.

3,000 damaged packages and every bomb of `bombs` are inspected, loaded and asked for a prediction, in a process whose
time is limited as `--time-limit` limits it. The promise (docs/hostile-files.md): each runs or is refused in one line
within 30 seconds, or is ended by that limit while it predicts, and none takes more than 2,048 MiB beside the imports.
Exit code 1 where one does not.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from coreml_prune_bench.mlprogram.named import AIMODEL, MLPACKAGE
from tests.runtimes.portable.attempts import Attempt, Attempts
from tests.runtimes.portable.bombs import BOMBS
from tests.runtimes.portable.test_fuzz import MANIFEST, PROGRAMS, SPECIFICATION, WEIGHTS, changed_bytes, changed_fields

SECONDS, MEBIBYTES = 30.0, 2048.0
TIME_LIMIT_S = 20.0
_MOST_BYTES = 16 << 30
"""Far above what is promised, so that it is measured and not enforced."""


@dataclass
class Worst:
    """Of all attempts so far. processor_s: what the process computed; seconds also counts what others did meanwhile."""

    count: int = 0
    seconds: tuple[float, str] = (0.0, "")
    processor_s: tuple[float, str] = (0.0, "")
    mebibytes: tuple[float, str] = (0.0, "")
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, name: str, attempt: Attempt) -> None:
        kind = attempt.outcome.partition(":")[0]
        self.count += 1
        self.outcomes[kind] += 1
        self.seconds = max(self.seconds, (attempt.seconds, name))
        self.processor_s = max(self.processor_s, (attempt.processor_s, name))
        self.mebibytes = max(self.mebibytes, (attempt.mebibytes, name))
        if kind not in ("ran", "refused", "endless"):
            self.broken.append(f"{name}: {attempt.outcome}")
        if attempt.seconds > SECONDS or attempt.mebibytes > MEBIBYTES:
            self.broken.append(f"{name}: {attempt.seconds:.1f} s, {attempt.mebibytes:.0f} MiB")

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {kind}" for kind, count in self.outcomes.most_common())
        return (
            f"{self.count:,} packages ({outcomes}); worst {self.seconds[0]:.1f} s ({self.seconds[1]}), processor "
            f"{self.processor_s[0]:.1f} s ({self.processor_s[1]}), {self.mebibytes[0]:.0f} MiB ({self.mebibytes[1]})"
        )


def damaged(folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    """So many, each in a place of its own that the next one takes; the same ones every time."""
    kinds = [(name, file) for name in PROGRAMS for file in (SPECIFICATION, WEIGHTS, MANIFEST, SPECIFICATION)]
    for number, (name, file) in enumerate(kinds):
        intact = PROGRAMS[name](folder / f"{number}.mlpackage")
        fields = number % 4 == 3
        contents = changed((intact / file).read_bytes(), fields=fields, count=-(-count // len(kinds)), which=number)
        for attempt, content in enumerate(contents):
            (intact / file).write_bytes(content)
            yield f"{name} {Path(file).name} {'fields' if fields else 'bytes'} {attempt}", intact


def changed(content: bytes, *, fields: bool, count: int, which: int) -> list[bytes]:
    """`count` contents that hypothesis makes of one, the same for the same `which`."""
    drawn: list[bytes] = []

    @seed(which)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        drawn.append(changed_fields(data, content) if fields else data.draw(changed_bytes(content)))

    draw()
    return drawn


def _of_core_ai() -> dict[str, Callable[[Path], Path]]:
    """The bombs in the form of a `.aimodel`; none where coreai-core, which writes and reads them, is not installed."""
    if importlib.util.find_spec("coreai") is None:
        return {}
    from tests.aimodel.bombs import BOMBS

    return BOMBS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=3_000)
    chosen = parser.parse_args()
    attempts = Attempts(TIME_LIMIT_S, _MOST_BYTES)
    bombs, mutations = Worst(), Worst()
    with tempfile.TemporaryDirectory() as name, suppress(KeyboardInterrupt):
        for bomb, make in {**BOMBS, **_of_core_ai()}.items():
            package = make(Path(name) / f"{bomb}{AIMODEL if bomb not in BOMBS else MLPACKAGE}")
            attempt = attempts.attempt(package)
            attempts.close()  # each in a process of its own, as a command has it
            attempts = Attempts(TIME_LIMIT_S, _MOST_BYTES)
            bombs.add(bomb, attempt)
            size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
            print(
                f"{bomb:36}{size / 1024:10,.1f} KiB{attempt.seconds:7.1f} s{attempt.processor_s:7.1f} s"
                f"{attempt.mebibytes:7.0f} MiB  {attempt.outcome[:160]}",
                flush=True,
            )
        print(f"bombs: {bombs}", flush=True)
        for what, package in damaged(Path(name), chosen.mutations):
            mutations.add(what, attempts.attempt(package))
            if mutations.count % 250 == 0:
                print(f"mutations: {mutations}", flush=True)
        print(f"mutations: {mutations}", flush=True)
    attempts.close()
    broken = [*bombs.broken, *mutations.broken]
    print("\n".join(broken) or f"none above {SECONDS:.0f} s or {MEBIBYTES:,.0f} MiB, none that crashed or raised")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
