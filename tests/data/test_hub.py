"""`hf:NAME`, against a hub on this machine: what is fetched when, and one line, soon, for all that is refused."""

import io
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coreml_prune_bench.data.hub
from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import hub_client, open_data
from tests.data.samples import noise, opening_fails, table

NAME = "someone/cats"


class _QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that have gone, which would stand in what the next test captures."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Hub:
    """Serves the files of one data set as the hub does, and remembers which were asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.error: str | None = None
        self.gated = False
        self.delay_s = 0.0
        self.chunk_bytes, self.pause_s = 1 << 20, 0.0
        self.fetched: list[str] = []
        self.asked = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                if path == f"/api/datasets/{NAME}" or path.startswith(f"/api/datasets/{NAME}/revision/"):
                    hub.asked += 1
                    time.sleep(hub.delay_s)
                    siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
                    self.answer(json.dumps({"id": NAME, "sha": "1" * 40, "siblings": siblings}).encode(), hub.error)
                    return
                if path == f"/api/datasets/{NAME}/tree/{'1' * 40}":
                    tree = [
                        {"type": "file", "path": name, "oid": f"{hash(content):x}", "size": len(content)}
                        for name, content in hub.files.items()
                    ]
                    self.answer(json.dumps(tree).encode(), None)
                    return
                file = path.removeprefix(f"/datasets/{NAME}/resolve/{'1' * 40}/")
                if self.command == "GET" and file in hub.files:
                    hub.fetched.append(file)
                error = "GatedRepo" if hub.gated else None if file in hub.files else "EntryNotFound"
                self.answer(hub.files.get(file, b""), error)

            do_HEAD = do_GET

            def answer(self, content: bytes, error: str | None) -> None:
                self.send_response(403 if error == "GatedRepo" else 404 if error else 200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hash(content):x}"')
                self.send_header("X-Repo-Commit", "1" * 40)
                if error:
                    self.send_header("X-Error-Code", error)
                self.end_headers()
                if self.command == "GET":
                    for start in range(0, len(content), hub.chunk_bytes):
                        time.sleep(hub.pause_s)
                        self.wfile.write(content[start : start + hub.chunk_bytes])

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, file: str, labels: list[int], names: list[str] | None = None) -> None:
        content = io.BytesIO()
        table(labels, names).to_parquet(content)
        self.files[file] = content.getvalue()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import datasets
    from huggingface_hub import constants

    served = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    # The client's own process reads the same settings from its environment.
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    # Started once, where it matters: a process takes a second, and there are many of these tests.
    monkeypatch.setattr(hub_client, "_run", _run_here)
    yield served
    served.stop()


_OWN_PROCESS = hub_client._run


def _run_here(arguments: Sequence[str], limit_s: float) -> str:
    answer = hub_client._main(*arguments, "0")
    if "error" in answer:
        raise hub_client.HubClientError(answer["error"], answer["message"])
    return answer["found"]


@pytest.fixture
def own_process(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "_run", _OWN_PROCESS)


def test_only_the_split_that_is_used_is_fetched(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.add("data/train-00000-of-00001.parquet", [0, 1, 0], ["a", "b"])
    hub.add("data/validation-00000-of-00002.parquet", [1, 1], ["a", "b"])
    hub.add("data/validation-00001-of-00002.parquet", [0], ["a", "b"])
    hub.add("data/test-00000-of-00001.parquet", [-1], ["a", "b"])  # ImageNet-1k's test labels are hidden
    capfd.readouterr()
    data = open_data(f"hf:{NAME}")
    assert capfd.readouterr() == ("", "")
    assert (data.classes, data.val.labels.tolist()) == (("a", "b"), [1, 1, 0])
    assert np.array_equal(np.array(data.val.image(1)), np.array(noise(20, 20, 1)))
    assert {file.split("-")[0] for file in hub.fetched} == {"data/validation"}
    assert data.train is not None
    assert data.train.labels.tolist() == [0, 1, 0]
    assert {file.split("-")[0] for file in hub.fetched} == {"data/validation", "data/train"}


@pytest.mark.usefixtures("own_process")
def test_what_was_fetched_serves_without_the_hub(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.add("test-00000-of-00001.parquet", [0, 1], ["a", "b"])
    before = open_data(f"hf:{NAME}")
    hub.stop()
    capfd.readouterr()
    after = open_data(f"hf:{NAME}")
    assert after.val.fingerprint == before.val.fingerprint
    assert before.revision == after.revision == "1" * 40
    (line,) = capfd.readouterr().err.splitlines()
    assert f"cannot ask the hub for data set {NAME}" in line
    assert f"commit {'1' * 40} is used" in line
    assert len(hub.fetched) == 1


def test_a_revision_is_asked_for_and_one_that_is_not_there_is_named(hub: Hub) -> None:
    hub.add("test-00000-of-00001.parquet", [0, 1], ["a", "b"])
    data = open_data(f"hf:{NAME}@v1.0")
    assert (data.revision, data.spec) == ("1" * 40, f"hf:{NAME}@v1.0")
    hub.error = "RevisionNotFound"
    opening_fails(f"hf:{NAME}@v2.0", f"data set {NAME} has no revision v2.0", "a commit, a branch or a tag")


@pytest.mark.slow
@pytest.mark.usefixtures("own_process")
def test_a_download_that_trickles_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time for the next one to be waited for."""
    hub.add("test-00000-of-00001.parquet", [0], ["a"])
    hub.chunk_bytes, hub.pause_s = 1, 0.05
    monkeypatch.setattr("coreml_prune_bench.models.download_limits.PATIENCE_S", 3)
    opening_fails(f"hf:{NAME}", NAME, "not finished after 3 s", "less than 50 kB a second", "what was fetched is kept")


def test_a_hub_that_cannot_be_reached_is_asked_once(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.stop()
    started = time.monotonic()
    opening_fails(f"hf:{NAME}", NAME, "cannot ask the hub", "Connection refused", "hf:PATH")
    assert time.monotonic() - started < 10  # load_dataset tries for half a minute
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_does_not_answer_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml_prune_bench.data.hub, "_PATIENCE_S", 0.2)
    hub.delay_s = 2
    opening_fails(f"hf:{NAME}", NAME, "timed out")
    assert hub.asked == 1


def test_a_name_that_the_hub_does_not_know(hub: Hub) -> None:
    hub.error = "RepoNotFound"
    opening_fails(f"hf:{NAME}", f"no data set {NAME}", "hf auth login", "HF_TOKEN")


def test_a_gated_data_set(hub: Hub) -> None:
    hub.add("data/validation-00000-of-00001.parquet", [0], ["a"])
    hub.gated = True
    opening_fails(f"hf:{NAME}", f"{NAME} is gated", f"{hub.url}/datasets/{NAME}", "HF_TOKEN")


def test_missing_shards_are_told(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    table([0]).to_parquet(folder / "validation-00001-of-00014.parquet")
    (folder / "._validation-00000-of-00014.parquet").write_bytes(b"\0")  # as macOS writes it on some disks
    opening_fails(f"hf:{folder}", "1 of the 14 files", "validation-00001-of-00014.parquet")


@pytest.fixture
def fetched_by_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` would have fetched and prepared in a process of its own."""
    monkeypatch.setattr(coreml_prune_bench.data.hub, "fetch_all", lambda name, revision, limit_s: None)


class NotParquet:
    """Stands for `datasets.load_dataset`."""

    def __init__(self, found: object) -> None:
        self.found = found
        self.asked: list[str] = []

    def __call__(self, name: str, revision: str | None = None) -> Any:
        assert revision == "1" * 40
        self.asked.append(name)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.usefixtures("fetched_by_datasets")
@pytest.mark.parametrize("files", [["train/a.jpg"], ["de/test.parquet", "en/test.parquet"], ["data/part-0.parquet"]])
def test_what_is_not_one_set_of_parquet_files_is_left_to_datasets(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    load = NotParquet({"train": table([0, 1], ["a", "b"]), "test": table([1], ["a", "b"])})
    monkeypatch.setattr("datasets.load_dataset", load)
    hub.files = dict.fromkeys(files, b"")
    assert open_data(f"hf:{NAME}").val.labels.tolist() == [1]
    assert load.asked == [NAME]


@pytest.mark.usefixtures("fetched_by_datasets")
@pytest.mark.parametrize("error", [ConnectionError("offline"), FileNotFoundError("no such\nname"), RuntimeError("")])
def test_what_datasets_cannot_load_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("datasets.load_dataset", NotParquet(error))
    opening_fails(f"hf:{NAME}", NAME, "cannot load", "expected")


@pytest.mark.usefixtures("fetched_by_datasets")
def test_a_split_without_rows_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", NotParquet({"train": table([0]), "test": table([0]).select([])}))
    opening_fails(f"hf:{NAME}", f"{NAME} [test]", "no images")


def test_hashes_of_rows_are_remembered_until_their_file_changes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "test.parquet"
    table([0, 1]).to_parquet(file)
    before = open_data(f"hf:{file}").val.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(coreml_prune_bench.data.hub.RowSource, "_digest", None)  # hashing again would fail
        assert open_data(f"hf:{file}").val.fingerprint == before
    table([0, 1], size=21).to_parquet(file)
    assert open_data(f"hf:{file}").val.fingerprint != before


def test_imagenets_classes_in_another_order_are_refused(hub: Hub, tmp_path: Path) -> None:
    known = {0: "tench", 1: "goldfish", 65: "sea snake", 207: "golden retriever", 340: "zebra", 388: "giant panda"}
    known |= {954: "banana", 999: "toilet tissue"}
    names = [f"{known.get(number, f'class {number}')}, a synonym" for number in range(1000)]
    table([0], names).to_parquet(tmp_path / "test.parquet")
    assert len(open_data(f"hf:{tmp_path / 'test.parquet'}").classes) == 1000
    names[0], names[1] = names[1], names[0]
    table([0], names).to_parquet(tmp_path / "test.parquet")
    opening_fails(f"hf:{tmp_path / 'test.parquet'}", "another order", "class 0 is 'goldfish, a synonym'", "'tench'")


def test_the_known_classes_stand_where_torchvision_has_them() -> None:
    from torchvision.models import MobileNet_V2_Weights

    from coreml_prune_bench.data.imagenet import _KNOWN_CLASSES

    categories = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert {position: categories[position] for position in _KNOWN_CLASSES} == _KNOWN_CLASSES


def test_labels_beyond_the_classes_are_refused_in_the_train_split_too(hub: Hub) -> None:
    hub.add("data/validation-00000-of-00001.parquet", [0], ["a", "b"])
    hub.add("data/train-00000-of-00001.parquet", [2], ["a", "b", "c"])
    data = open_data(f"hf:{NAME}")
    with pytest.raises(DataError, match=r"\[train\] has label 2: expected below 2"):
        _ = data.train
