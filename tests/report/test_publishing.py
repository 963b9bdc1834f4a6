"""What is written elsewhere, read back by those who read it there: MLflow's client, W&B's files, huggingface_hub."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.config_rows import config_rows
from coreml_prune_bench.report.drawn import svg
from coreml_prune_bench.report.publishing import hub_card
from coreml_prune_bench.report.publishing.runs import runs_of
from coreml_prune_bench.report.results import Results, load_records
from tests.factories import accuracy_record, write_records


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A dense network, 90 of 100 right in 1,000 bytes; pruned in two trials, 80 and 70 right in 500."""
    right = [[n < most for n in range(100)] for most in (90, 80, 70)]
    write_records(
        tmp_path,
        accuracy_record(right[0], algorithm="dense", weight_bytes=1000, sparsity=0.0),
        accuracy_record(right[1], algorithm="magnitude-pruner", title="MagnitudePruner"),
        accuracy_record(right[2], algorithm="magnitude-pruner", title="MagnitudePruner", trial=1),
    )
    return tmp_path


def test_csv_is_the_tables(results: Path, tmp_path: Path, run_bench: Any) -> None:
    _, table, _ = run_bench("table", "--results", results, "--format", "csv")
    assert run_bench("publish", "--to", "csv", "--results", results)[1] == table
    out = tmp_path / "rows.csv"
    code, output, _ = run_bench("publish", "--to", "csv", "--results", results, "--out", out)
    assert (code, output.strip(), out.read_text()) == (0, str(out), table)


def test_a_run_says_what_a_record_does(results: Path) -> None:
    dense, first, second = runs_of(config_rows(load_records(results)))
    assert dense.name == "resnet50, dense, Float16"
    assert first.name.endswith(", trial 1")
    assert [run.metrics["top1"] for run in (dense, first, second)] == [90, 80, 70]
    assert (first.metrics["compression_ratio"], first.parameters["algorithm"]) == (2, "magnitude-pruner")
    assert len({run.key for run in (dense, first, second)}) == 3


def test_a_card_is_read_by_the_hubs_own_library(results: Path, tmp_path: Path, run_bench: Any) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    out = tmp_path / "README.md"
    arguments = ["--row", "resnet50, MagnitudePruner", "--license", "mit", "--out", out, "--results", results]
    code, _, errors = run_bench("publish", "--to", "hub-card", *arguments)
    assert code == 0, errors
    data = huggingface_hub.ModelCard.load(out).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "coreml", "image-classification")
    top1, top5 = data.eval_results
    assert (top1.task_type, top1.metric_type, top1.metric_name) == (
        "image-classification",
        "accuracy",
        "Top-1 accuracy",
    )
    assert top1.metric_value == 0.75
    assert top5.metric_value == 1
    assert "Top-1 75.00 %, top-5 100.00 % on 100 images" in out.read_text()
    assert run_bench("publish", "--to", "hub-card", *arguments)[0] == 2  # it is there
    assert run_bench("publish", "--to", "hub-card", *arguments, "--force")[0] == 0


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("hf:ILSVRC/imagenet-1k@abc", "ILSVRC/imagenet-1k"),
        ("imagefolder:/home/somebody/flowers#500", "flowers"),
        ("digits", "digits"),
    ],
)
def test_a_card_names_no_folders(spec: str, name: str, results: Path) -> None:
    pytest.importorskip("huggingface_hub")
    (row, *_) = config_rows(load_records(results))
    first = row.trials[0]
    record = first.model_copy(update={"data": first.data.model_copy(update={"spec": spec})})
    text = hub_card.card(config_rows([record])[0])
    assert f"name: {name}\n" in text
    assert "somebody" not in text


def test_options_that_belong_elsewhere(results: Path, refused: Any, tmp_path: Path) -> None:
    assert "say which with --row" in refused("publish", "--to", "hub-card", "--results", results)
    assert "--tracking-uri is for --to mlflow" in refused("publish", "--to", "csv", "--tracking-uri", "x")
    assert "--license is for --to hub-card" in refused("publish", "--to", "wandb", "--license", "mit")
    assert "--tracking-uri says where" in refused("publish", "--to", "mlflow", "--out", tmp_path, "--results", results)


def test_a_plot_is_shown_and_saved(results: Path, tmp_path: Path) -> None:
    plot = load_records(results).plot()
    assert "/schema/vega-lite/" in plot.to_dict()["$schema"]
    plot.save(tmp_path / "a.png")
    plot.save(tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.svg").read_text() == svg(plot)
    with pytest.raises(BenchError, match="nothing to draw"):
        Results(()).plot()


# --- what is no part of the development extra


def skip_without(module: str, package: str) -> Any:
    """The module; without it a line that `make test-slow` shows."""
    return pytest.importorskip(module, reason=f"no {package} here: .venv/bin/pip install {package}")


@pytest.fixture
def tracking_server(tmp_path: Path) -> Iterator[str]:
    """MLflow's own server on SQLite, which the extra leaves out."""
    skip_without("mlflow.server", "mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (tmp_path / "server.log").open("w") as log:
        command += ["--backend-store-uri", store, "--default-artifact-root", str(tmp_path / "artifacts")]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


@pytest.mark.slow
def test_mlflows_client_reads_the_runs(results: Path, tracking_server: str, run_bench: Any) -> None:
    mlflow = skip_without("mlflow", "mlflow")
    arguments = ["--to", "mlflow", "--tracking-uri", tracking_server, "--results", results]
    code, _, errors = run_bench("publish", *arguments)
    assert code == 0, errors
    assert "3 of 3 runs are new" in errors
    client = mlflow.tracking.MlflowClient(tracking_server)
    (experiment,) = (one for one in client.search_experiments() if one.name != "Default")
    found = {run.info.run_name: run.data for run in client.search_runs([experiment.experiment_id])}
    assert sorted(run.metrics["top1"] for run in found.values()) == [70, 80, 90]
    assert found["resnet50, dense, Float16"].params["model"] == "resnet50"
    assert "0 of 3 runs are new" in run_bench("publish", *arguments)[2]


@pytest.mark.slow
def test_an_mlflow_server_that_is_not_there(results: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without("mlflow", "mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    line = refused("publish", "--to", "mlflow", "--tracking-uri", "http://127.0.0.1:9", "--results", results)
    assert "MLflow: " in line


def records_in(file: Path) -> Iterator[bytes]:
    """Of a .wandb file: LevelDB's log format, blocks of 32 KiB, behind a head of seven bytes."""
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts, at = parts + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


@pytest.mark.slow
def test_offline_files_of_weights_and_biases(results: Path, tmp_path: Path, run_bench: Any) -> None:
    skip_without("wandb", "wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    code, _, errors = run_bench("publish", "--to", "wandb", "--out", tmp_path / "out", "--results", results)
    assert code == 0, errors
    files = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 3
    found = []
    for file in files:
        told: dict[str, Any] = {}
        for content in records_in(file):
            record = Record.FromString(content)
            updates = [*record.run.config.update, *record.config.update, *record.summary.update]
            told |= {one.key: json.loads(one.value_json) for one in updates if one.key}
        found.append(told)
    assert sorted(told["top1"] for told in found) == [70, 80, 90]
    assert {told["model"] for told in found} == {"resnet50"}
