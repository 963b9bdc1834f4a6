"""Packages of results at an address: a worker puts them there itself, and the client need not be passed."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.client import HowOnCluster, OnCluster
from coreml_prune_bench.cluster.connect import Where
from coreml_prune_bench.cluster.landing import Landed
from coreml_prune_bench.cluster.parcel import pack
from coreml_prune_bench.cluster.run import Elsewhere
from coreml_prune_bench.cluster.tasks import Order, Result, sent
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.mirror import Mirror
from coreml_prune_bench.records.store import Store
from tests.cluster.clusters import Cluster
from tests.cluster.test_run import SMALLEST, in_process, json_of, one_processor  # noqa: F401  (a fixture)

ADDRESS = "memory://bench/results"
ORDER = Order("tag", "topic", "task", 1, "net, pruned", address=ADDRESS, build_key="b" * 64)


@pytest.fixture
def parcel(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "worker"))
    store = Store(tmp_path / "scratch")

    def fill(empty: Path) -> dict[str, str]:
        (empty / "weights").write_bytes(bytes(1000))
        return {"scope": "all"}

    return pack(store, store.artifact("a" * 64, fill))


@pytest.fixture
def place(tmp_path):
    """A worker's."""
    (tmp_path / "worker").mkdir(exist_ok=True)
    return SimpleNamespace(scratch=tmp_path / "worker" / "store")


def test_a_package_is_found_there_under_the_key_of_the_client(parcel, place, tmp_path, monkeypatch):
    said: list[str] = []
    assert sent(ORDER, parcel, place, SimpleNamespace(say=said.append)) is None
    assert list((tmp_path / "worker").iterdir()) == [], "nothing stays on the worker"
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "client"))
    store = Store(Mirror(ADDRESS).folder)
    found = store.found("b" * 64)
    assert (found / "weights").read_bytes() == bytes(1000)
    assert store.manifest(found) == {"scope": "all"}
    assert said == []


def test_without_an_address_or_the_way_to_it_the_client_gets_it_and_a_line_says_why(
    parcel, place, tmp_path, monkeypatch
):
    def refuse(self, path, to, **options):
        raise PermissionError("Access Denied")

    said: list[str] = []
    teller = SimpleNamespace(say=said.append)
    assert sent(Order("tag", "topic", "task", 1, "net"), parcel, place, teller) is parcel
    assert said == []
    with monkeypatch.context() as barred:
        barred.setattr(MemoryFileSystem, "put_file", refuse)
        for _ in range(2):  # as where the task is done again
            assert sent(ORDER, parcel, place, teller) is parcel
    line = f"--results {ADDRESS}: Access Denied; net, pruned: its package goes by way of the client"
    assert said == [line] * 2
    assert list((tmp_path / "worker").iterdir()) == []
    place.scratch = tmp_path / "full" / "store"  # a folder that is not there, as a disk that is full
    assert sent(ORDER, parcel, place, teller) is parcel
    assert "No such file or directory" in said[-1]
    # What is there already is not sent again.
    place.scratch = tmp_path / "worker" / "store"
    assert sent(ORDER, parcel, place, teller) is None
    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    assert sent(ORDER, parcel, place, teller) is None


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are fixed on Linux alone")
def test_a_run_has_the_table_of_one_process_and_its_packages_at_the_address(
    one_processor,  # noqa: F811
    run_bench,
    tmp_path,
    monkeypatch,
):
    suite, address = tmp_path / "small.toml", f"file://{tmp_path}/address"
    suite.write_text(SMALLEST)
    expected = in_process(suite, tmp_path / "here")
    cluster = Cluster(tmp_path)
    try:
        monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "worker"))
        cluster.join("box")
        monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "client"))
        code, _, errors = cluster.call("run", "--suite", suite, "--results", address, "--threads", 1)
        assert code == 0, errors
    finally:
        cluster.end()
    assert json_of(read_records(tmp_path / "address")) == expected
    names = {path.name for path in (tmp_path / "address" / "artifacts").iterdir()}
    assert names == {path.name for path in (tmp_path / "here").glob("artifacts/[!.]*")}
    (pruned,) = (one for one in read_records(tmp_path / "address") if one.pruning.algorithm != "dense")
    assert tree_hash(tmp_path / "address" / pruned.package.path) == pruned.package.sha256
    folder = Path(pruned.package.path).parent
    assert not (Mirror(address).folder / folder).exists(), "the client has not seen it"
    code, _, errors = run_bench("package", "save", pruned.row, tmp_path / "x.mlpackage", "--results", address)
    assert code == 0, errors
    assert (tmp_path / "x.mlpackage" / "Manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are fixed on Linux alone")
def test_parts_of_images_on_machines_that_share_nothing_and_packages_at_the_address(
    one_processor,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    suite, address = tmp_path / "small.toml", f"file://{tmp_path}/address"
    suite.write_text(SMALLEST)
    expected = in_process(suite, tmp_path / "here")
    cells = lay_out(load_suite(str(suite)), None)
    cluster = Cluster(tmp_path)
    try:
        for name in ("one", "two"):
            cluster.join(name)
        monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "client"))
        where = Where(cluster.address, cluster.certificates)
        results = Mirror(address).folder
        with Elsewhere(where, HowOnCluster(threads=1, part_images=100), "auto", results) as others:
            measure = others.on(SuiteChoice(str(suite)), cells).measure
            assert run(cells, RunOptions(Store(results)), measure).measured == len(cells)
    finally:
        cluster.end()
    assert json_of(read_records(tmp_path / "address")) == expected
    for record in read_records(tmp_path / "address"):
        assert tree_hash(tmp_path / "address" / record.package.path) == record.package.sha256


def test_a_package_that_a_worker_has_put_elsewhere_ends_the_run(tmp_path, tiny_run, tiny_suite, monkeypatch):
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "client"))
    cells = lay_out(load_suite(str(tiny_suite)), None)
    records = {record.key: record for record in tiny_run.records}
    cell = next(cell for cell in cells if cell.config and records[cell.key].package)
    result = Result(records[cell.key].to_json().encode(), None, 1.0)
    client = OnCluster.__new__(OnCluster)
    options = RunOptions(Store(Mirror(f"file://{tmp_path}/address").folder))
    with pytest.raises(BenchError, match=r"its worker has put the package at file://.*, where it is not"):
        client._received(cell, Landed(None, result), "record", options)
