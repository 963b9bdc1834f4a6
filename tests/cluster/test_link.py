"""The suite `imagenet` over links of 100 Mbit/s and 50 ms: what crosses them."""

import logging
import sys
from time import monotonic

import pytest
import torch

from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.store import Store
from tests.cluster import links, sized, trivial
from tests.cluster.clusters import Cluster

NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "resnet50")
WORKERS = ("one", "two")
HEADERS = 1.06
"""Of TLS, TCP and IP, and what Dask says about what it sends."""
LITTLE_BYTES = 10_000_000
"""That a suite with its questions and acknowledgements, and no package, may take to get to the workers."""
LOG = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not links.possible(), reason="makes network namespaces: root on Linux")
def test_a_package_crosses_each_link_at_most_once(tmp_path, monkeypatch, record_property):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in NETWORKS:
        torch.save(untrained_model(get_network(name), 10).state_dict(), weights / f"{name}.pth")
    cells = SuiteChoice("imagenet", data=["digits"], weights=weights).cells(Reporter())
    first = next(cell for cell in cells if cell.config is None and cell.subject.network.name == "mobilenet_v3_small")
    run([first], RunOptions(Store(tmp_path / "first")))
    (record,) = tmp_path.glob("first/records/*.json")
    monkeypatch.setenv(trivial.RECORD, str(record))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "tests.cluster.sized")
    command = (
        "run",
        "--suite",
        "imagenet",
        "--data",
        "digits",
        "--weights",
        weights,
        "--results",
        tmp_path / "results",
    )
    with links.Links(("scheduler", "client", *WORKERS), bits_per_second=1e8, round_trip_s=0.05) as between:
        cluster = Cluster(tmp_path, between)
        try:
            for name in WORKERS:
                cluster.join(name)
            before, began = between.bytes_between.copy(), monotonic()
            code, _, errors = cluster.call(*command)
            took_s = monotonic() - began
            assert code == 0, errors
        finally:
            cluster.end()
        crossed = between.bytes_between - before
    assert len(read_records(tmp_path / "results")) == len(cells)
    told = ", ".join(f"{a} to {b} {count / 1e6:.1f} MB" for (a, b), count in sorted(crossed.items()))
    sizes = sum(map(sized.size_of, cells))
    dense = sum(sized.size_of(cell) for cell in cells if cell.config is None)
    told = f"{len(cells)} packages of {sizes / 1e6:.1f} MB, {dense / 1e6:.1f} MB dense, in {took_s:.0f} s: {told}"
    LOG.info(told)
    record_property("crossed", told)
    most = HEADERS * (sizes + len(cells) * record.stat().st_size)
    assert sum(crossed[name, "scheduler"] for name in WORKERS) < most
    assert crossed["scheduler", "client"] < most
    assert sum(crossed[one, other] for one in WORKERS for other in WORKERS) < HEADERS * dense
    assert crossed["client", "scheduler"] + crossed["scheduler", "one"] + crossed["scheduler", "two"] < LITTLE_BYTES
