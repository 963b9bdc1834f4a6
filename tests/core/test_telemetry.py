"""Nothing is sent: no look-up and no file but our own, however the project is used, and the libraries' own switches."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.core.telemetry import OFF, _reports

ROOT = Path(__file__).parents[2]
# Where one of these is set, ONNX Runtime reports nothing by itself, and nothing would be tested.
CI = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID",
      "BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI",
      "ORT_RUNNING_UNIT_TESTS", "DO_NOT_TRACK", "DISABLE_TELEMETRY")  # fmt: skip

PREDICT = "model.predict({'x': __import__('numpy').ones((1, 8), 'float32')})"
WAYS = {
    "the command": [str(ROOT / "run_bench.py"), "predict", "PACKAGE", "--input", "x=x.json"],
    "the API": ["-c", f"import coreml_prune_bench as b; model = b.portable.load('PACKAGE'); {PREDICT}"],
    "portable": ["-c", f"from coreml_prune_bench.runtimes.portable import load; model = load('PACKAGE'); {PREDICT}"],
    "under coremltools": [
        "-c",
        "from coreml_prune_bench.runtimes import portable; portable.install(); import coremltools as ct; "
        f"model = ct.models.MLModel('PACKAGE'); {PREDICT}",
    ],
}
# Importing coremltools takes most of a minute beside other tests.
EACH_WAY = [pytest.param(way, marks=[pytest.mark.slow] * way.endswith("coremltools")) for way in WAYS]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has told no library anything, and whose folders are empty."""
    inherited = {name: value for name, value in os.environ.items() if name not in (*CI, *OFF)}
    places = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    return {**inherited, **places, "COREML_BENCH_CACHE": str(home / "ours"), "TMPDIR": str(home / "ours"), **more}


def python(home: Path, code: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(home, **more), cwd=home)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "ours").mkdir(parents=True)
    return tmp_path / "home"


def written(home: Path) -> list[str]:
    """Files that are not in our own cache."""
    files = (path.relative_to(home) for path in home.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] != "ours" and path.name != "x.json")


def traced(command: list[str], home: Path) -> list[str]:
    """Every attempt to look a name up or to reach an address, in a process without any network; skipped elsewhere."""
    log = home.parent / "calls"
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg,openat", "-o", str(log)]
    if not all(map(shutil.which, ("unshare", "strace"))):
        pytest.skip("no unshare and strace on this machine")
    if subprocess.run([*alone, *strace, "true"], capture_output=True).returncode:
        pytest.skip("this user may not trace a process, or take its network away")
    done = subprocess.run([*alone, *strace, *command], capture_output=True, text=True, env=environment(home), cwd=home)
    assert done.returncode == 0, done.stderr
    return [line for line in log.read_text().splitlines() if re.search(r"AF_INET|/etc/(resolv\.conf|hosts)\b", line)]


@pytest.mark.parametrize("way", EACH_WAY)
def test_no_file_but_our_own_is_written(way: str, intact: Path, home: Path) -> None:
    (home / "x.json").write_text(json.dumps(np.ones((1, 8)).tolist()))
    command = [part.replace("PACKAGE", str(intact)) for part in WAYS[way]]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment(home), cwd=home)
    assert written(home) == []


@pytest.mark.parametrize("way", EACH_WAY)
def test_no_name_is_looked_up_and_no_address_tried(way: str, intact: Path, home: Path) -> None:
    (home / "x.json").write_text(json.dumps(np.ones((1, 8)).tolist()))
    command = [part.replace("PACKAGE", str(intact)) for part in WAYS[way]]
    assert traced([sys.executable, *command], home) == []


def test_the_tests_above_would_see_it(home: Path) -> None:
    """ONNX Runtime by itself, where nothing can be reached."""
    if not _reports(version("onnxruntime")):
        pytest.skip("this ONNX Runtime has no telemetry")
    traced([sys.executable, "-c", "import onnxruntime, time; time.sleep(1)"], home)
    assert any("deviceid" in file for file in written(home))
    lookup = "import socket; socket.getaddrinfo('collector.invalid', 443)"
    assert traced([sys.executable, "-c", f"import contextlib\nwith contextlib.suppress(OSError): {lookup}"], home)


def test_every_switch_is_set_and_a_users_own_setting_stays(home: Path) -> None:
    code = f"import coreml_prune_bench, os; print([os.environ[name] for name in {list(OFF)}])"
    assert python(home, code).stdout == f"{list(OFF.values())}\n"
    assert python(home, code, **dict.fromkeys(OFF, "")).stdout == f"{list(OFF.values())}\n"
    assert python(home, code, **dict.fromkeys(OFF, "0")).stdout == f"{['0'] * len(OFF)}\n"


def test_the_libraries_of_the_hub_take_it_as_off(home: Path) -> None:
    pytest.importorskip("datasets")
    code = (
        "import coreml_prune_bench, datasets.config; from huggingface_hub import constants; "
        "print(constants.HF_HUB_DISABLE_TELEMETRY, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS)"
    )
    assert python(home, code).stdout == "True False\n"


IMPORTED_BEFORE = (
    "import sys, types; sys.modules['onnxruntime'] = types.SimpleNamespace(__version__='{}'); "
    "import coreml_prune_bench, coreml_prune_bench.core.files, coreml_prune_bench.runtimes.portable as portable"
)


def test_one_warning_where_onnx_runtime_was_imported_before(home: Path) -> None:
    (home / "program.py").write_text(IMPORTED_BEFORE.format("1.32.0").replace("; ", "\n"))
    errors = python(home, "import program").stderr
    first, *rest = errors.splitlines()
    assert first == (
        f"{home / 'program.py'}:3: UserWarning: onnxruntime 1.32.0 was imported before coreml_prune_bench, and with it "
        "its telemetry, which cannot be turned off afterwards: import coreml_prune_bench first, or set "
        "ORT_DISABLE_TELEMETRY=1"
    )
    assert "Warning" not in "".join(rest)


@pytest.mark.parametrize(
    ("number", "setting"),
    [
        ("1.22.0", {}),
        ("1.28.1", {}),
        ("1.32.0", {"ORT_DISABLE_TELEMETRY": "1"}),
        ("2.0", {"ORT_DISABLE_TELEMETRY": "0"}),
    ],
)
def test_no_warning_where_there_is_nothing_to_warn_of(number: str, setting: dict[str, str], home: Path) -> None:
    """A version without telemetry; a user who has decided."""
    assert python(home, IMPORTED_BEFORE.format(number), **setting).stderr == ""


@pytest.mark.parametrize("number", ["1.29.0", "2.0.1", "1.33.0.dev20261101", "of our own"])
def test_a_warning_for_every_version_that_may_report(number: str, home: Path) -> None:
    assert f"onnxruntime {number} was imported before" in python(home, IMPORTED_BEFORE.format(number)).stderr
