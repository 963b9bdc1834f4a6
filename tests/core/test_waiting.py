"""How OpenMP's threads wait, as OpenMP itself says when it is loaded: briefly, however the project is used."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coreml_prune_bench.core.waiting import BRIEF

ROOT = Path(__file__).parents[2]
BENCH = str(ROOT / "run_bench.py")
REFUSED = ["build", "--suite", "quick", "--device", "none"]
"""A command that imports torch and ends then."""
FREE = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}


def libgomp(package: str) -> Path:
    """The one that a package brings; skipped where it brings none (not Linux)."""
    found = importlib.util.find_spec(package)
    assert found
    assert found.origin
    folder = Path(found.origin).parent
    (library,) = [*folder.glob("lib/libgomp*"), *folder.parent.glob("scikit_learn.libs/libgomp*")][:1] or [None]
    return library or pytest.skip(f"no GNU OpenMP with {package} on this platform")


def spins(command: list[str], folder: Path, **setting: str) -> set[str]:
    """How often threads turn before they sleep, as each OpenMP that the command loads prints it."""
    environment = {**FREE, "OMP_DISPLAY_ENV": "verbose", "COREML_BENCH_CACHE": str(folder / "cache"), **setting}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=folder)
    return set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr))


# Only OpenMP is loaded: importing torch takes seconds.
LOAD = "import ctypes; ctypes.CDLL({!r})"


@pytest.mark.parametrize("package", ["torch", "sklearn"])
def test_openmp_that_is_loaded_after_this_package_spins_briefly(package: str, tmp_path: Path) -> None:
    load = LOAD.format(str(libgomp(package)))
    assert spins(["-c", load], tmp_path) == {"300000"}, "or the test would not see it"
    assert spins(["-c", f"import coreml_prune_bench; {load}"], tmp_path) == {BRIEF["GOMP_SPINCOUNT"]}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
        ({"OMP_WAIT_POLICY": "active"}, "30000000000"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"KMP_BLOCKTIME": "200"}, "300000"),
        ({"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": ""}, "10000"),  # set to nothing is not set
        ({"OMP_NUM_THREADS": "1"}, "10000"),
    ],
)
def test_what_the_user_has_set_wins(setting: dict[str, str], expected: str, tmp_path: Path) -> None:
    load = LOAD.format(str(libgomp("torch")))
    assert spins(["-c", f"import coreml_prune_bench; {load}"], tmp_path, **setting) == {expected}
    code = (
        f"import coreml_prune_bench, os; print({{name: os.environ.get(name) for name in {sorted({*setting, *BRIEF})}}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=FREE | setting)
    kept = {name: value for name, value in setting.items() if value}
    ours = {} if kept.keys() & {"OMP_WAIT_POLICY", *BRIEF} else BRIEF
    assert eval(done.stdout) == {**dict.fromkeys({*setting, *BRIEF}), **setting, **ours, **kept}


def test_nothing_is_set_where_torch_is_there_already(tmp_path: Path) -> None:
    """It would have no effect, and the line about a busy machine would be wrong."""
    code = (
        "import sys; sys.modules['torch'] = sys; import coreml_prune_bench, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=FREE)
    assert done.stdout == "None\n"


@pytest.mark.slow
def test_the_command_and_these_tests_load_torch_so(tmp_path: Path) -> None:
    libgomp("torch")
    assert spins([BENCH, *REFUSED], tmp_path) == {BRIEF["GOMP_SPINCOUNT"]}
    (tmp_path / "test_x.py").write_text("import torch\n\ndef test_it() -> None: ...\n")
    assert spins(["-m", "pytest", "-s", "-q", "test_x.py"], tmp_path) == {BRIEF["GOMP_SPINCOUNT"]}


@pytest.mark.slow
def test_processes_that_torchrun_starts_load_torch_so(tmp_path: Path) -> None:
    libgomp("torch")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", BENCH, *REFUSED]
    # torchrun itself, which waits, has imported torch without us.
    assert spins(torchrun, tmp_path) == {BRIEF["GOMP_SPINCOUNT"], "300000"}
