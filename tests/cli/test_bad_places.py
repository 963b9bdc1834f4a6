"""Every command with places that cannot be: one line, before data is read or anything is measured."""

import errno
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.own import own_network
from coreml_prune_bench.models.weights import load_pretrained
from coreml_prune_bench.records import store
from coreml_prune_bench.records.accuracy import read_records
from tests.factories import accuracy_record, write_records

NO_DATA = ("--data", "imagefolder:no-images")
NO_NUMBERS = ("nan", "inf", "-inf")

WRITES = {
    "run": ("run", *NO_DATA, "--results"),
    "build": ("build", *NO_DATA, "--results"),
    "latency": ("latency", "no.mlpackage", "--results"),
    "parity": ("parity", "no.mlpackage", *NO_DATA, "--results"),
    "sensitivity": ("sensitivity", "no_network", *NO_DATA, "--results"),
    "advise": ("advise", "no_network", *NO_DATA, "--results"),
    "advise --out": ("advise", "no_network", *NO_DATA, "--out"),
    "accuracy": ("accuracy", "no.mlpackage", *NO_DATA, "--results"),
    "predict": ("predict", "no.mlpackage", "--output-dir"),
    "report": ("report", "--results", "no-results"),
    "baseline save": ("baseline", "save", "--results", "no-results"),
    "export-onnx": ("export-onnx", "no.mlpackage"),
    "sensitivity --out": ("sensitivity", "no_network", *NO_DATA, "--out"),
    "latency --benchmark-json": ("latency", "no.mlpackage", "--benchmark-json"),
    "doctor --out": ("doctor", "--self-test", "--out"),
}
FILES = {name for name, command in WRITES.items() if command[-1] in ("--out", "--benchmark-json", "no.mlpackage")}
FILES = FILES - {"advise --out"} | {"report", "baseline save"}
"""Nothing else that these name is there either: what is told first is the place."""


@pytest.fixture
def places(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    return {
        "/dev/null/x/y": "/dev/null is",
        "x" * 300 + "/y": "File name too long",
        "loop/y": "Too many levels of symbolic links",
        "file/x/y": "file is",
        "/proc/self/x/y": "is not a folder|can be written|leads nowhere",
    }


@pytest.fixture
def takes_nothing(monkeypatch) -> Callable[[Path], None]:
    """Makes of a folder one in which nothing can be written, to the one who may do everything too."""
    closed: list[Path] = []
    may = os.access

    def access(path: Path, mode: int) -> bool:
        return may(path, mode) and not (mode & os.W_OK and Path(path) in closed)

    def close(folder: Path) -> None:
        closed.append(folder)

    monkeypatch.setattr(os, "access", access)
    return close


@pytest.mark.parametrize("name", WRITES)
def test_a_place_that_cannot_be_written_ends_a_command_before_anything_else(refused, places, name):
    for place, why in places.items():
        line = refused(*WRITES[name], place)
        assert place in line
        # Where a file is to be written, its folder has to be there; where a folder is, it is made.
        assert any(word in line for word in why.split("|")) or f"{Path(place).parent} is not a folder" in line, line
        assert "no-" not in line.replace(place, "")
        assert "no_network" not in line
    assert sorted(path.name for path in Path().iterdir()) == ["file", "loop"]


@pytest.mark.parametrize("name", WRITES)
def test_a_folder_in_which_nothing_can_be_written_does_too(refused, tmp_path, takes_nothing, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    takes_nothing(folder)
    line = refused(*WRITES[name], folder / "x" if name in FILES else folder)
    assert f"nothing can be written in {folder}" in line
    assert "no-" not in line
    assert "no_network" not in line


@pytest.mark.parametrize(
    ("name", "part"),
    [("run", "artifacts"), ("accuracy", "records"), ("latency", "latency"), ("parity", "parity")],
)
def test_so_does_a_part_of_a_results_folder(refused, tmp_path, takes_nothing, name, part):
    (tmp_path / "results" / part).mkdir(parents=True)
    takes_nothing(tmp_path / "results" / part)
    line = refused(*WRITES[name], tmp_path / "results")
    assert line == f"error: --results {tmp_path}/results: nothing can be written in {tmp_path}/results/{part}"


def test_a_report_of_a_results_folder_in_which_nothing_can_be_written(run_bench, tmp_path, takes_nothing):
    write_records(tmp_path / "r", accuracy_record([True, False]))
    for folder in (tmp_path / "r", tmp_path / "r" / "records"):
        takes_nothing(folder)
    assert run_bench("report", tmp_path / "x.html", "--results", tmp_path / "r")[0] == 0
    assert run_bench("table", "--results", tmp_path / "r")[0] == 0


def test_what_was_measured_is_shown_where_no_record_can_be_kept(run_bench, package, images, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json")

    command = ("accuracy", package, "--data", f"imagefolder:{images}")
    _, shown, _ = run_bench(*command)
    monkeypatch.setattr(store, "write_atomically", full)
    code, output, errors = run_bench(*command, "--results", tmp_path / "r")
    assert (code, output) == (2, shown)
    told = "error: measured as shown, but not every record is kept: No space left on device: a.json"
    assert errors.splitlines()[-1].startswith(told)


def test_a_link_that_leads_nowhere_is_no_folder(refused, places):
    Path("gone").symlink_to("nowhere")
    assert "gone is a link that leads nowhere" in refused("run", *NO_DATA, "--results", "gone/x")


@pytest.mark.parametrize("place", ["/dev/null/x", "x" * 300, "loop", "file/x", "a\x1b[31m\nb", "caf\udce9", "[/red]"])
@pytest.mark.parametrize(
    "command",
    [
        ("table", "--results"),
        ("baseline", "show"),
        ("baseline", "list"),
        ("gate", "--results", "x", "--baseline"),
        ("inspect",),
        ("predict",),
        ("compare", "x", "--data", "digits"),
        ("accuracy", "x", "--data"),
        ("run", "--suite"),
        ("run", "--model"),
        ("run", "--data", "digits", "--weights"),
    ],
    ids=" ".join,
)
def test_a_place_that_cannot_be_read_is_one_line_of_text(refused, places, command, place):
    line = refused(*command, place)
    assert line.isprintable()


def test_a_home_folder_is_meant_wherever_a_path_is_taken(run_bench, package, images, tmp_path, monkeypatch):
    """As in `--results=~/r`, where a shell leaves it as it is."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COREML_BENCH_CACHE", "~/cache")
    shutil.copytree(package, home / "tiny.mlpackage")
    images.rename(home / "images")
    (home / "map.csv").write_text("class,label\na,0\nb,1\nc,2\n")
    command = ("accuracy", "~/tiny.mlpackage", "--data=imagefolder:~/images", "--class-map=~/map.csv")
    code, _, errors = run_bench(*command, "--results=~/r")
    assert code == 0, errors
    assert run_bench("baseline", "save", "~/b.json", "--results", "~/r")[0] == 0
    assert run_bench("gate", "--baseline", "~/b.json", "--results", "~/r", "--output", "~/report.txt")[0] == 0
    np.save(home / "image.npy", np.zeros((32, 32, 3), np.uint8))
    assert run_bench("predict", "~/tiny.mlpackage", "--input=image=~/image.npy")[0] == 0
    (home / "own.toml").write_text("no suite")
    assert run_bench("run", "--suite", "~/own.toml")[2].startswith(f"error: {home}/own.toml: not TOML")
    certificates = home / ".coreml-prune-bench" / "cluster"  # the default, which has a ~ too
    assert f"no cluster.pem in {certificates}" in run_bench("cluster", "status", "tls://127.0.0.1:1")[2]
    assert {path.name for path in home.iterdir()} >= {"r", "b.json", "report.txt", "cache"}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("place", ["~no-such-user/x", "~no-such-user"])
def test_a_home_folder_that_is_not_there_is_no_folder_of_that_name(refused, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    for name in ("run", "accuracy", "advise --out", "baseline save"):
        assert f"{place}: there is no home folder ~no-such-user" in refused(*WRITES[name], place)
    for spec in ("imagefolder", "imagenet", "hf"):
        assert place in refused("accuracy", "x", "--data", f"{spec}:{place}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("table", "--results", ""), "--results"),
        (("accuracy", "", "--data", "digits"), "PACKAGE..."),
        (("gate", "--rules="), "--rules"),
        (("gate", "--baseline", "", "--require", "top1 >= 2"), "--baseline"),
        (("run", "--model", ""), "--model"),
        (("baseline", "save", ""), "FILE"),
        (("cache", "--results", ""), "--results"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_a_value_that_is_empty_is_neither_this_folder_nor_everything(refused, tmp_path, monkeypatch, command, told):
    monkeypatch.chdir(tmp_path)
    assert (
        refused(*command) == f"error: {told} is empty, as of a variable that is not set; give a value or leave it out"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize(
    "command",
    [
        ("advise", "x", *NO_DATA, "--max-drop"),
        ("advise", "x", *NO_DATA, "--min-ratio"),
        ("run", "--checkpoint-minutes"),
        ("latency", "x", "--seconds"),
        ("latency", "x", "--time-limit"),
        ("accuracy", "x", *NO_DATA, "--time-limit"),
        ("predict", "x", "--time-limit"),
        ("run", "--cluster", "local:1", "--task-time-limit"),
        ("run", "--cluster", "local:1", "--wait-limit"),
        ("parity", "x", *NO_DATA, "--min-agreement"),
        ("sensitivity", "x", *NO_DATA, "--sparsity"),
        ("sensitivity", "x", *NO_DATA, "--levels"),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_what_is_no_number_is_refused(run_bench, command, number):
    """NaN is within every limit: a gate on it would pass whatever is measured."""
    code, output, errors = run_bench(*command[:-1], f"{command[-1]}={number}")
    assert (code, output) == (2, "")
    assert "Traceback" not in errors
    assert command[-1] in errors
    assert not math.isfinite(float(number))


@pytest.mark.parametrize("option", ["--rounds", "--predictions", "--batch-size", "--concurrency", "--seconds"])
def test_a_number_that_no_record_can_hold_is_refused(refused, tmp_path, option):
    line = refused("latency", "x", "--runtime", "portable", f"{option}={'9' * 30}", "--results", tmp_path / "r")
    assert line.startswith(f"error: {option} ")
    assert "should be less than or equal to" in line


def test_names_that_are_not_in_utf8_are_written_as_text_and_read_again(run_bench, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    data = {"spec": f"imagefolder:{name}", "skipped": [f"val/{name}.png"], "fingerprint": "f" * 64}
    written = accuracy_record([True, False], model=name, data=data)
    write_records(tmp_path / "r", written)
    (record,) = read_records(tmp_path / "r")
    assert record == written
    assert (record.data.spec, record.data.skipped) == (r"imagefolder:caf\udce9", (r"val/caf\udce9.png",))
    for command in (("table",), ("report", tmp_path / "x.html"), ("baseline", "save", tmp_path / "x.json")):
        code, _, errors = run_bench(*command, "--results", tmp_path / "r")
        assert (code, errors) == (0, "")
    assert r"caf\udce9" in run_bench("baseline", "show", tmp_path / "x.json")[1]


def test_a_script_in_place_of_a_network_does_not_end_the_program(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\ndef net(num_classes=3): ...\nsys.exit('usage: train.py')\n")
    with pytest.raises(BenchError, match="line 3: SystemExit: usage"):
        load_pretrained(own_network(f"{script}:net"), None)
    script.write_text(f"def {'n' * 100}(): ...")
    with pytest.raises(BenchError, match="longer than 100 bytes"):
        own_network(f"{script}:{'n' * 100}")
