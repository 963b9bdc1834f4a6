"""A server of this test's own, alone or with a published table of two packages."""

import shutil
from pathlib import Path

import coremltools as ct
import pytest

import coreml_prune_bench.published.download
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.models.weights import untrained_model
from tests.published.server import Server
from tests.tiny_network import TINY


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(coreml_prune_bench.published.download, "_pause", lambda failures: None)
    server = Server()
    yield server
    server.close()


HEADER = "model,config,algorithm,compression_ratio,top1_mean,top1_std,latency_ms,package_url,config_url\n"


def zipped_package(package: Path, folder: Path) -> bytes:
    """As Finder's "Compress" makes it: the package is the top folder."""
    return Path(shutil.make_archive(str(folder / package.name), "zip", package.parent, package.name)).read_bytes()


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, bytes]:
    """A dense and a half sparse tiny network for ImageNet's number of classes, zipped."""
    folder = tmp_path_factory.mktemp("packages")
    dense = to_coreml(untrained_model(TINY, 1000).eval(), 32)
    dense.save(str(folder / "Dense.mlpackage"))
    config = ct.optimize.coreml.OptimizationConfig(ct.optimize.coreml.OpMagnitudePrunerConfig(target_sparsity=0.5))
    with silenced():
        ct.optimize.coreml.prune_weights(dense, config).save(str(folder / "Half.mlpackage"))
    return {name: zipped_package(folder / f"{name}.mlpackage", folder) for name in ("Dense", "Half")}


@pytest.fixture
def published(server, packages, tmp_path, monkeypatch) -> Server:
    """The server, with a published table of two rows of the tiny network; fetched into a cache of this test's own."""
    server.files = {
        "/Dense.mlpackage.zip": packages["Dense"],
        "/Half.mlpackage.zip": packages["Half"],
        "/Half.yaml": b"global_config: {}\n",
    }
    address = server.address
    (tmp_path / "published.csv").write_text(
        f"{HEADER}Tiny,Float16,n/a,1.0,71.5,,0.5,{address}/Dense.mlpackage.zip,\n"
        f"Tiny,Unstructured Sparsity 50%,MagnitudePruner,1.5,70.5,0.25,0.5,{address}/Half.mlpackage.zip,"
        f"{address}/Half.yaml\n"
    )
    monkeypatch.setattr("coreml_prune_bench.published.table.TABLE", tmp_path / "published.csv")
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))
    return server
