"""The same build is the same bytes: in another process, with other hash seeds, in another folder, on another day."""

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters import _converters_entry
from coremltools.models.utils import load_spec

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.run import RunOptions, build_all
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.targets import packages_of_suite
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes import portable
from tests.bench.all_algorithms import save_all
from tests.models.tiny import SIZE, dense

ROOT = Path(__file__).parents[2]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def elsewhere(*arguments: object) -> None:
    """Run a module in a process of other hash seeds, with as many threads as this one."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=ROOT, env=environment, check=True)


@pytest.mark.slow
def test_another_process_makes_the_same_packages_with_every_algorithm(tmp_path):
    save_all(tmp_path / "here")
    elsewhere("tests.bench.all_algorithms", tmp_path / "another" / "folder")
    here, there = content(tmp_path / "here"), content(tmp_path / "another" / "folder")
    assert sum(name.endswith(".mlmodel") for name in here) == 5
    assert [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)] == []


@pytest.mark.slow
def test_another_process_makes_the_same_artifacts(tiny_run, tiny_results, tiny_suite, tmp_path):
    """Of the tiny suite: its trained network, its packages, and what the manifests say of them."""
    elsewhere("tests.bench.build_program", tiny_suite, tmp_path / "results")
    here, there = content(tiny_results / "artifacts"), content(tmp_path / "results" / "artifacts")
    assert [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)] == []


@pytest.fixture
def saved(tmp_path) -> Path:
    MLPACKAGE.save_dense(dense(), SIZE, tmp_path / "x.mlpackage")
    return tmp_path / "x.mlpackage"


def test_on_another_day_it_is_the_same_package(saved, tmp_path, monkeypatch):
    class Past(datetime.date):
        @classmethod
        def today(cls):
            return cls(2001, 2, 3)

    monkeypatch.setattr(_converters_entry, "date", Past)
    MLPACKAGE.save_dense(dense(), SIZE, tmp_path / "y.mlpackage")
    assert content(tmp_path / "y.mlpackage") == content(saved)
    # What was converted with what stays.
    assert ct.models.MLModel(str(saved)).user_defined_metadata["com.github.apple.coremltools.version"] == ct.__version__


def test_another_network_has_other_identifiers(saved, tmp_path):
    MLPACKAGE.save_dense(dense(seed=1), SIZE, tmp_path / "y.mlpackage")
    assert not set(content(saved).values()) & set(content(tmp_path / "y.mlpackage").values())


def test_coremltools_and_the_portable_runtime_read_it_and_leave_every_byte(saved, tmp_path):
    plain = tmp_path / "plain.mlpackage"
    to_coreml(dense(), SIZE).save(str(plain))
    before = content(saved)
    ours, theirs = load_spec(str(saved)), load_spec(str(plain))
    del theirs.description.metadata.userDefined["com.github.apple.coremltools.conversion_date"]
    assert ours == theirs
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    results = [portable.load(path).predict_batch({"image": images})["logits"] for path in (saved, plain)]
    assert np.array_equal(*results)
    assert content(saved) == before
    assert {path.stat().st_mode & 0o77 for path in (saved / "Data").rglob("*") if path.is_dir()} == {
        saved.stat().st_mode & 0o77
    }


def test_packages_that_were_removed_and_built_again_are_those_that_the_records_mean(
    tiny_run, tiny_results, tiny_suite, tmp_path
):
    """`latency --suite` finds packages by the hash that the records have."""
    results = Path(shutil.copytree(tiny_results, tmp_path / "results"))
    before = packages_of_suite(results, "tiny")
    for path, _ in before:
        shutil.rmtree(path.parent)
    with pytest.raises(BenchError, match="lacks the packages of"):
        packages_of_suite(results, "tiny")
    build_all(lay_out(load_suite(str(tiny_suite)), None), RunOptions(Store(results)))
    assert packages_of_suite(results, "tiny") == before
