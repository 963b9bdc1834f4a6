"""The tiny suite in this process, on processes of this machine, and on a cluster over TLS: the same tables."""

import json
import os
import re
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import dask
import distributed  # noqa: F401  (its defaults have to be there before a setting is made inside them)
import pytest
import torch

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.cluster.certificates import make_certificates
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.models.processors import processors
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.latency import read_latency_records
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.accuracy_tables import render
from tests.cluster.clusters import ON_A_MAC, SUITE, Cluster, children
from tests.tiny_network import TINY

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are fixed on Linux alone")

SMALL = SUITE.replace("SPARSITY", "[0.5, 0.75]")
SMALLEST = SUITE.replace("SPARSITY", "0.5")


@pytest.fixture
def tiny_known(monkeypatch):
    """Workers that this process starts know the tiny network."""
    with dask.config.set({"distributed.worker.preload": ["tests.tiny_network"]}):
        yield


@pytest.fixture
def one_processor(threads):
    """This thread computes on one, as a worker does with `--threads 1`."""
    before = processors()
    os.sched_setaffinity(0, [min(before)])
    threads(1)
    yield
    os.sched_setaffinity(0, before)


def in_process(suite: Path, results: Path) -> str:
    outcome = run(lay_out(load_suite(str(suite)), None), RunOptions(Store(results)))
    return json_of(outcome.records)


def names(results: Path) -> set[str]:
    return {path.name for path in results.glob("artifacts/[!.]*")}


def left_behind() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("bench-cluster-*"))


def json_of(records) -> str:
    return render(records, "accuracy", "json") + render(records, "size", "md")


def assert_like(records: list[Record], results: Path) -> None:
    """They are those of `results`, but for when, where and how fast they were made."""
    here = {record.key: record for record in read_records(results)}
    for record in records:
        assert record.predictions == here[record.key].predictions
        assert record.package == here[record.key].package
        assert (record.data, record.row) == (here[record.key].data, here[record.key].row)


@pytest.mark.parametrize(
    ("count", "text", "cells"), [(1, SMALLEST, 2), pytest.param(2, SMALL, 3, marks=pytest.mark.slow)]
)
def test_on_processes_of_this_machine_the_table_is_the_same_and_nothing_is_left(
    run_bench, tiny_known, one_processor, tmp_path, monkeypatch, count, text, cells
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other tests start clusters at the same time
    suite = tmp_path / "small.toml"
    suite.write_text(text)
    expected = in_process(suite, tmp_path / "here")
    results, temporary = tmp_path / "there", left_behind()
    command = ("run", "--suite", suite, "--results", results)
    code, _, errors = run_bench(*command, "--cluster", f"local:{count}", "--threads", 1)
    assert code == 0, errors
    assert f"{cells} of {cells} cells measured now" in errors
    assert "s on local-" in errors
    records = read_records(results)
    assert json_of(records) == expected
    assert_like(records, tmp_path / "here")
    # What is built is here too: this process goes on without the cluster.
    assert names(results) == names(tmp_path / "here")
    assert f"0 of {cells} cells measured now" in run_bench(*command)[2]
    assert left_behind() <= temporary
    assert [pid for pid in children(os.getpid()) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []


@pytest.mark.slow
def test_build_finds_what_a_cluster_built_and_builds_nothing_itself(run_bench, tiny_known, one_processor, tmp_path):
    suite = tmp_path / "small.toml"
    suite.write_text(SMALLEST)
    command = ("build", "--suite", suite, "--json", "--results")
    code, here, errors = run_bench(*command, tmp_path / "here")
    assert code == 0, errors
    code, there, errors = run_bench(*command, tmp_path / "there", "--cluster", "local:1", "--threads", 1)
    assert code == 0, errors
    assert there == here.replace(str(tmp_path / "here"), str(tmp_path / "there"))
    for one in json.loads(there):
        path = Path(one["package"])
        assert tree_hash(path) == tree_hash(tmp_path / "here" / path.relative_to(tmp_path / "there"))
    # Nothing is missing now, and no cluster is looked for.
    code, again, _ = run_bench(*command, tmp_path / "there", "--cluster", "tls://127.0.0.1:9")
    assert (code, again) == (0, there)


@pytest.mark.slow
def test_sensitivities_are_those_of_this_process(run_bench, tiny_known, one_processor, tmp_path):
    (tmp_path / "weights").mkdir()
    torch.save(untrained_model(TINY, 10).state_dict(), tmp_path / "weights" / "tiny.pth")
    command = ("sensitivity", "tiny", "--data", "digits", "--weights", tmp_path / "weights", "--samples", 4)
    code, here, errors = run_bench(*command, "--results", tmp_path / "here", "--json")
    assert code == 0, errors
    there = ("--results", tmp_path / "there", "--json", "--cluster", "local:1", "--threads", 1)
    code, output, errors = run_bench(*command, *there)
    assert code == 0, errors
    assert json.loads(output)["layers"] == json.loads(here)["layers"]
    assert names(tmp_path / "there") >= names(tmp_path / "here")


@pytest.mark.slow
def test_advice_is_that_of_this_process(run_bench, tiny_known, one_processor, tmp_path):
    suite = tmp_path / "small.toml"
    suite.write_text(SMALLEST)
    command = (
        "advise",
        "tiny",
        "--data",
        "digits",
        "--suite",
        suite,
        "--max-drop",
        50,
        "--min-ratio",
        1.2,
        "--float16",
    )
    code, here, errors = run_bench(*command, "--results", tmp_path / "here", "--json")
    assert code in (0, 1), errors
    there = ("--results", tmp_path / "there", "--json", "--cluster", "local:1", "--threads", 1)
    found, output, errors = run_bench(*command, *there)
    assert found == code, errors
    assert json.loads(output)["tried"] == json.loads(here)["tried"]
    assert {record.key for record in read_records(tmp_path / "there")} == {
        record.key for record in read_records(tmp_path / "here")
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three machines in one: two that build, one of which is taken for one with a GPU, and a scripted Mac."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.join("box", "--as", "cpu")
        cluster.join("big", "--as", "gpu")
        cluster.join("mac", "--as", "mac", program=ON_A_MAC)
        yield cluster
    finally:
        cluster.end()


@pytest.mark.slow
def test_on_a_cluster_of_three_over_tls_the_table_is_the_same(cluster, one_processor, tiny_suite, tmp_path):
    expected = in_process(tiny_suite, tmp_path / "here")
    command = ("run", "--suite", tiny_suite, "--results", tmp_path / "there", "--threads", 1, "--device", "cpu")
    code, _, errors = cluster.call(*command)
    assert code == 0, errors
    assert json_of(read_records(tmp_path / "there")) == expected
    done = Counter(re.findall(r"(.*): top-1 .* s on (\w+)\)", errors))
    assert len(done) == 6  # each cell once
    assert set(done.values()) == {1}
    assert {machine for _, machine in done} <= {"box", "big"}  # nothing but Core ML on a Mac
    assert "0 of 6 cells measured now" in cluster.call(*command)[2]
    # And on the Mac, where nothing else runs, the time that its packages take: once, then it is known.
    quick = ("--rounds", 2, "--predictions", 20, "--seconds", 0, "--compute-units", "all")
    command = ("latency", "--suite", "tiny", "--results", tmp_path / "there", *quick)
    code, output, errors = cluster.call(*command)
    assert code == 0, errors
    assert "5 of 5 rows measured now" in errors
    assert "Core ML on MacBook Pro" in output
    records = read_latency_records(tmp_path / "there")
    assert [len(record.rounds) for record in records] == [2] * 5
    assert "0 of 5 rows measured now" in cluster.call(*command)[2]


@pytest.mark.slow
def test_status_tells_who_is_there(cluster, run_bench):
    command = ("cluster", "status", cluster.address, "--certificates", cluster.certificates)
    code, output, _ = run_bench(*command, "--json")
    assert code == 0
    found = {one["machine"]: one for one in json.loads(output)}
    assert {name: one["kind"] for name, one in found.items()} == {"box": "cpu", "big": "gpu", "mac": "mac"}
    assert found["mac"]["resources"]["ANE"] == 1
    assert "GPU" not in found["box"]["resources"]
    assert found["big"]["doing"] == ""
    assert "| mac" in run_bench(*command)[1]


@pytest.mark.slow
def test_whoever_has_another_certificate_or_none_is_refused(cluster, refused, tmp_path):
    from distributed import Client

    make_certificates(tmp_path / "other")
    line = refused("cluster", "status", cluster.address, "--certificates", tmp_path / "other")
    assert "does not take the certificate in" in line
    with pytest.raises(OSError, match=r"Timed out|in <|connect"):
        Client(cluster.address.replace("tls://", "tcp://"), timeout=3)
    line = refused("cluster", "join", "tcp://127.0.0.1:8786")
    assert line == "error: tcp://127.0.0.1:8786: expected tls://HOST:PORT; without TLS nothing is sent"
    make_certificates(tmp_path / "old", valid=timedelta(days=-1))
    assert "expired at" in refused("cluster", "join", cluster.address, "--certificates", tmp_path / "old")


@pytest.mark.slow
def test_where_no_cluster_is_a_line_says_so(refused, tmp_path, tiny_suite):
    make_certificates(tmp_path / "c")
    line = refused("cluster", "status", "tls://127.0.0.1:9", "--certificates", tmp_path / "c")
    assert "no cluster answers at tls://127.0.0.1:9" in line


@pytest.mark.slow
def test_a_worker_with_other_images_is_left_out_and_both_are_named(images, tiny_suite, tmp_path):
    other = Cluster(tmp_path)
    try:
        other.join("wrong", "--data", f"imagefolder:{images}")
        code, output, errors = other.call("run", "--suite", tiny_suite, "--results", tmp_path / "results")
        assert (code, output) == (2, "")
        *_, line = errors.splitlines()
        assert line.startswith("error: no worker fits: wrong is left out: val of imagefolder:")
        assert "there, and of digits" in line
    finally:
        other.end()


@pytest.mark.slow
def test_a_run_without_workers_says_so_goes_on_when_one_joins_and_ends_after_its_limit(tmp_path):
    suite = tmp_path / "small.toml"
    suite.write_text(SMALLEST)
    lonely = Cluster(tmp_path)
    try:
        command = ("run", "--suite", suite, "--results", tmp_path / "results", "--threads", 1)
        code, output, errors = lonely.call(*command, "--wait-limit", 1)
        assert (code, output) == (2, "")
        join = f"one joins by `coreml-prune-bench cluster join {lonely.address} --as cpu`"
        assert errors.splitlines()[-1] == (
            f"error: no worker with CPU fits; there are: none at all; {join}; none within 1 s (--wait-limit); what was "
            "finished is kept"
        )
        client = lonely.client(*command)
        line = next(line for line in client.stderr if line.startswith("warning: "))
        assert line == f"warning: no worker with CPU fits; there are: none at all; {join}; waiting for one\n"
        lonely.join("late")
        _, errors = client.communicate(timeout=300)
        assert client.returncode == 0, errors
        assert "2 of 2 cells measured now" in errors
    finally:
        lonely.end()


@pytest.mark.slow
def test_what_ends_its_worker_three_times_is_a_failed_record(run_bench, tiny_known, tmp_path):
    """A second is over before torch is imported."""
    suite = tmp_path / "small.toml"
    suite.write_text(SMALL)
    command = ("run", "--suite", suite, "--results", tmp_path / "results", "--cluster", "local:1")
    code, _, errors = run_bench(*command, "--task-time-limit", 1)
    assert code == 1, errors
    assert errors.count("warning: local-1 starts anew: tiny, network: not done after 1 s (--task-time-limit)") == 3
    reason = "its worker ended 3 times: on local-1 (local-1: not done after 1 s (--task-time-limit))"
    assert [record.reason for record in read_records(tmp_path / "results")] == [reason] * 3
