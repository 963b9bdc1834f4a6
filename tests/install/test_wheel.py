"""The wheel, installed away from the checkout: what the base answers without torch, and a user's own `models`."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from coreml_prune_bench.core.cache_folder import CACHE_VARIABLE

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "few-images"
SOURCES = ("harness", "models", "src", "pyproject.toml", "README.md", "LICENSE", "run_bench.py")


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done


def build(kind: str, source: Path, out: Path) -> Path:
    """Build `source` as pip would, with the setuptools that is here: a wheel or an sdist."""
    code = f"import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"
    return out / run(sys.executable, "-c", code, out, cwd=source).stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """What is committed, without what a build leaves behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


class Environment:
    """A fresh virtual environment, and a folder to work in that is not the checkout."""

    def __init__(self, folder: Path) -> None:
        self._uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
        venv.create(folder / "env", with_pip=self._uv is None, symlinks=True)
        self.python = folder / "env/bin/python"
        self.work = folder / "work"
        self.work.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        self.variables = kept | {CACHE_VARIABLE: str(folder / "cache"), "COLUMNS": "200"}

    def install(self, *arguments: object) -> None:
        with_uv = [self._uv, "pip", "install", "--python", self.python]
        run(*(with_uv if self._uv else [self.python, "-m", "pip", "install"]), "--quiet", *arguments, cwd=self.work)

    @property
    def site_packages(self) -> Path:
        (found,) = self.python.parents[1].glob("lib/python*/site-packages")
        return found

    def __call__(self, *command: object, **variables: str) -> str:
        """Standard output of a program of the environment, such as `coreml-prune-bench` or `python`."""
        program = self.python.parent / str(command[0])
        return run(program, *command[1:], cwd=self.work, env=self.variables | variables).stdout

    def refused(self, *command: object) -> str:
        """The one line of a command that ends with exit code 2, besides one about a busy machine."""
        called = [str(self.python.parent / "coreml-prune-bench"), *map(str, command)]
        done = subprocess.run(called, capture_output=True, text=True, cwd=self.work, env=self.variables)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith("other programs keep"))
        return line


def test_an_sdist_gives_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build("sdist", source, tmp_path)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
        archive.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(wheel) as direct, zipfile.ZipFile(build("wheel", unpacked, tmp_path)) as through_sdist:
        assert sorted(direct.namelist()) == sorted(through_sdist.namelist())
        for name in direct.namelist():
            if not name.endswith("/RECORD"):
                assert direct.read(name) == through_sdist.read(name), name
        packed = {name.split("/", 1)[1] for name in direct.namelist() if name.startswith("coreml_prune_bench/")}
    committed = {file.relative_to(ROOT / "harness").as_posix() for file in (ROOT / "harness").rglob("*.*")}
    committed |= {f"models/{file.relative_to(ROOT / 'models').as_posix()}" for file in (ROOT / "models").rglob("*.py")}
    assert packed == {name for name in committed if "__pycache__" not in name and (ROOT / "harness" / name).is_file()}


def test_the_base_answers_without_torch(wheel, package, images, run_bench, tmp_path):
    base = Environment(tmp_path)
    base.install("--constraint", ROOT / "constraints.txt", wheel, "pytest")
    absent = "from importlib.util import find_spec; print([n for n in {} if find_spec(n)])"
    assert base("python", "-c", absent.format(("torch", "torchvision", "sklearn", "datasets"))) == "[]\n"
    assert base("python", "-c", absent.format(("harness", "models"))) == "[]\n"
    assert "coreml-prune-bench 0." in base("coreml-prune-bench", "--version")
    table = base("coreml-prune-bench", "table", "--results", RECORDS)
    assert table == run_bench("table", "--results", RECORDS)[1]
    base("coreml-prune-bench", "report", "page.html", "--results", RECORDS)
    assert "</html>" in (base.work / "page.html").read_text()
    judged = json.loads(
        base("coreml-prune-bench", "gate", "--baseline", RECORDS, "--results", RECORDS, "--format", "json")
    )
    assert judged["rows"]

    data = f"imagefolder:{images}"
    assert "conv 3" in base("coreml-prune-bench", "inspect", package)
    (measured,) = json.loads(base("coreml-prune-bench", "accuracy", package, "--data", data, "--json"))
    assert measured["images"] == 12
    assert "image" in base("coreml-prune-bench", "predict", package, "--input", f"image={images}/val/a/0.jpg")
    base("coreml-prune-bench", "export-onnx", package, "out.onnx")
    base("coreml-prune-bench", "compare", package, package, "--data", data)
    base("coreml-prune-bench", "latency", package, "--runtime", "portable", "--rounds", "1", "--seconds", "0")
    assert "coremltools" in base("coreml-prune-bench", "doctor")
    (base.work / "test_mine.py").write_text(
        f"def test_it(coreml_gate):\n    coreml_gate({str(package)!r}, data={data!r}, baseline={str(package)!r})\n"
    )
    assert "1 passed" in base("pytest", "test_mine.py")

    lacks = "which the base installation leaves out: pip install 'coreml-prune-bench"
    assert f"this needs torch, {lacks}[build]'" in base.refused("build", "--data", data)
    assert f"this needs torch, {lacks}[build]'" in base.refused("run", "--suite", "quick")
    assert f"this needs sklearn, {lacks}[digits]'" in base.refused("accuracy", package, "--data", "digits")
    assert f"this needs datasets, {lacks}[hub]'" in base.refused("accuracy", package, "--data", f"hf:{images}")


SUITE = """
description = "a network of the user's"
models = ["mobilenet_v3_small"]
weights = "none"
training = {epochs = 1, batch_size = 4}
[[configs]]
algorithm = "post-training"
sparsity = 0.5
"""
NETWORK = """
from harness.head import head
from models.blocks import block
import torch

def build(num_classes: int = 3) -> torch.nn.Module:
    pooled = torch.nn.AdaptiveAvgPool2d(1)
    return torch.nn.Sequential(block(), torch.nn.ReLU(), pooled, torch.nn.Flatten(), head(num_classes))
"""


@pytest.fixture
def mine(wheel, tmp_path) -> Environment:
    """The wheel, torch of the environment that the tests run in, and a user's own packages beside `net.py`."""
    made = Environment(tmp_path)
    made.install("--no-deps", wheel)
    # A path in a .pth file is searched last, and the .pth of an editable installation there is not read.
    (made.site_packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    for name, content in {
        "suite.toml": SUITE,
        "net.py": NETWORK,
        "harness/__init__.py": "",
        "harness/head.py": "import torch\n\ndef head(classes):\n    return torch.nn.Linear(8, classes)\n",
        "models/__init__.py": "",
        "models/blocks.py": "import torch\n\ndef block():\n    return torch.nn.Conv2d(3, 8, 3)\n",
    }.items():
        (made.work / name).parent.mkdir(exist_ok=True)
        (made.work / name).write_text(content)
    return made


def test_a_users_own_models_and_harness_are_theirs(mine, images):
    data = f"imagefolder:{images}"
    arguments = ("run", "--suite", "suite.toml", "--model", "net.py:build", "--data", data, "--format", "json")
    place = "import coreml_prune_bench; print(coreml_prune_bench.__file__)"
    assert str(mine.site_packages) in mine("python", "-c", place)
    dense, pruned = json.loads(mine("coreml-prune-bench", *arguments))
    assert (dense["algorithm"], pruned["algorithm"], pruned["sparsity"]) == ("dense", "post-training", 0.5)
    record = json.loads(next((mine.work / "results/local/records").glob("*.json")).read_text())
    assert record["provenance"]["git_commit"] is None
    assert record["provenance"]["packages"]["coreml-prune-bench"]

    # Again as a script, with the user's folder first on the path: nothing is measured anew, so the keys are the same.
    assert json.loads(mine("python", ROOT / "run_bench.py", *arguments, PYTHONPATH=str(mine.work))) == [dense, pruned]
    assert len(list((mine.work / "results/local/records").glob("*.json"))) == 2

    package = sorted((mine.work / "results/local/artifacts").glob("*/*.mlpackage"))[0]
    (mine.work / "test_mine.py").write_text(
        "import models.blocks, harness.head\n\ndef test_it(coreml_gate):\n"
        f"    coreml_gate({str(package)!r}, data={data!r}, baseline={str(package)!r})\n"
        "    assert models.blocks.__file__.startswith(" + repr(str(mine.work)) + ")\n"
    )
    assert "1 passed" in mine("python", "-m", "pytest", "test_mine.py")


def test_the_old_names_are_importable_nowhere_in_a_checkout(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit\nfrom importlib.util import find_spec\n"
        "atexit.register(lambda: print([name for name in ('harness', 'models') if find_spec(name)]))\n"
    )
    for program in (ROOT / "run_bench.py", Path(sys.executable).with_name("coreml-prune-bench")):
        done = run(sys.executable, program, "--version", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
        assert done.stdout.splitlines()[-1] == "[]"
