"""Ctrl-C while a suite runs on a cluster: a line says what runs on, nothing is left behind, the next run goes on."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from coreml_prune_bench.records.accuracy import read_records
from tests.cluster.clusters import PROGRAM, ROOT, SUITE, Cluster, children

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes where Linux tells of them"),
]

CELLS = 5
SECONDS = 300


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "several.toml"
    path.write_text(SUITE.replace("SPARSITY", "[0.5, 0.6, 0.7, 0.8]"))
    return path


def wait_for_a_record(results: Path, client: subprocess.Popen) -> None:
    until = time.monotonic() + SECONDS
    while not list(results.glob("records/*.json")):
        assert client.poll() is None, client.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def records_of(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in results.glob("records/*.json")}


def listening(pids: list[int]) -> set[int]:
    ports: set[int] = set()
    for pid in pids:
        found = psutil.Process(pid).net_connections("tcp")
        ports |= {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}
    return ports


def test_a_cluster_works_on_and_says_on_what(tmp_path, suite):
    cluster = Cluster(tmp_path)
    try:
        cluster.join("one")
        cluster.join("two")
        results = tmp_path / "results"
        command = ("run", "--suite", suite, "--results", results, "--threads", 1)
        client = cluster.client(*command)
        wait_for_a_record(results, client)
        client.send_signal(signal.SIGINT)
        output, errors = client.communicate(timeout=60)
        assert (client.returncode, output) == (128 + signal.SIGINT, "")
        *_, told, last = errors.splitlines()
        assert re.fullmatch(
            r"what is queued is cancelled; to its end runs (Tiny|tiny).* on (one|two)(, .* on (one|two))*", told
        ), errors
        assert last.startswith("error: interrupted; what was finished is kept")
        before = records_of(results)
        assert len(before) < CELLS
        code, _, errors = cluster.call(*command)
        assert code == 0, errors
        assert f"{CELLS - len(before)} of {CELLS} cells measured now" in errors
        assert before.items() <= records_of(results).items()
        assert {record.status for record in read_records(results)} == {"measured"}
    finally:
        cluster.end()
    assert cluster.left() == []


def test_processes_of_this_machine_end(tmp_path, suite):
    """As a terminal has it, which sends the signal to them, too."""
    results, temporary = tmp_path / "results", tmp_path / "temporary"
    temporary.mkdir()
    command = [*PROGRAM, "run", "--suite", str(suite), "--results", str(results), "--threads", "1"]
    environment = {**os.environ, "TMPDIR": str(temporary), "DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.tiny_network"}

    def start() -> subprocess.Popen:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command, "--cluster", "local:2"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    client = start()
    wait_for_a_record(results, client)
    below = children(client.pid)
    ports = listening([client.pid, *below])
    assert len(ports) >= 3  # of the scheduler, and of each worker
    os.killpg(client.pid, signal.SIGINT)
    output, errors = client.communicate(timeout=60)
    assert (client.returncode, output) == (128 + signal.SIGINT, "")
    assert "Traceback" not in errors
    assert re.search(r"^what is queued is cancelled; ended with this run ", errors, re.MULTILINE), errors
    # (Behind it Python may tell of semaphores that it clears away, of processes that were ended at work.)
    assert re.search(r"^error: interrupted; what was finished is kept", errors, re.MULTILINE), errors
    until = time.monotonic() + 10  # what watches over semaphores ends behind the others
    while (left := [pid for pid in below if psutil.pid_exists(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []
    with pytest.raises(ProcessLookupError):
        os.killpg(client.pid, 0)
    assert list(temporary.iterdir()) == []
    shared = results / "artifacts" / ".cluster"
    assert list(shared.glob("artifacts/[!.]*"))  # the network, for the next run
    assert ports.isdisjoint(one.laddr.port for one in psutil.net_connections("tcp") if one.status == "LISTEN")
    before = records_of(results)
    client = start()
    errors = client.communicate(timeout=SECONDS)[1]
    assert client.returncode == 0, errors
    assert f"{CELLS - len(before)} of {CELLS} cells measured now" in errors
    assert before.items() <= records_of(results).items()
    assert list(temporary.iterdir()) == []
    assert not shared.exists()
