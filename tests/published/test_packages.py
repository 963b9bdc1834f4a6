"""The published packages, fetched and checked."""

import hashlib
import io
import json
import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from coreml_prune_bench.core.files import tree_hash, tree_hash_of_all
from coreml_prune_bench.published.packages import fetch, published_folder, published_packages
from coreml_prune_bench.published.table import read_table
from tests.published.samples import weight_file, zip_of


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_committed_table_links_nine_packages_and_four_configs_under_names_of_their_own():
    table = read_table()
    urls = [url for row in table for url in row.urls]
    assert (len(table), len(urls)) == (9, 13)
    assert all(url.startswith("https://") for url in urls)
    assert len({url.rsplit("/", 1)[1] for url in urls}) == 13
    assert [row.sparsity for row in table] == [0, 0.5, 0.75] * 3


def test_fetching_keeps_packages_and_configs_with_their_hashes(run_bench, published, packages, tmp_path):
    code, output, errors = run_bench("fetch-published", "--json")
    assert code == 0, errors
    dense, half_, config = json.loads(output)
    assert dense["sha256"] == hashlib.sha256(packages["Dense"]).hexdigest()
    assert (half_["file"], half_["size_bytes"], half_["new"]) == ("Half.mlpackage", len(packages["Half"]), True)
    assert Path(config["path"]).read_bytes() == b"global_config: {}\n"
    with zipfile.ZipFile(io.BytesIO(packages["Half"])) as archive:
        expected = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    assert files(Path(half_["path"]).parent) | expected == files(Path(half_["path"]).parent)
    lock = json.loads((tmp_path / "cache/published/published.lock.json").read_text())
    assert lock["files"][f"{published.address}/Half.mlpackage.zip"]["sha256"] == half_["sha256"]
    assert sorted(path.name for path in published_folder().iterdir() if not path.name.startswith(".")) == [
        "Dense.mlpackage", "Half.mlpackage", "Half.yaml", "published.lock.json",
    ]  # fmt: skip


def test_fetching_again_checks_and_downloads_nothing(run_bench, published):
    run_bench("fetch-published")
    asked = len(published.requests)
    code, output, _ = run_bench("fetch-published")
    assert (code, output.count("was there, unchanged")) == (0, 3)
    assert len(published.requests) == asked == 3


def test_one_networks_packages_alone(run_bench, refused, published):
    assert "no package of resnet50 was published" in refused("fetch-published", "--models", "tiny,resnet50")
    assert run_bench("fetch-published", "--models", "tiny")[0] == 0


def test_a_file_that_changed_on_the_server_is_refused(run_bench, published, packages, tmp_path):
    run_bench("fetch-published")
    before = files(published_folder())
    shutil.rmtree(published_folder() / "Half.mlpackage")
    published.files["/Half.mlpackage.zip"] = packages["Dense"]
    code, _, errors = run_bench("fetch-published")
    (line,) = errors.splitlines()
    assert code == 1
    assert f"{published.address}/Half.mlpackage.zip is not the file that it was on 20" in line
    assert "published.lock.json" in line
    assert not (published_folder() / "Half.mlpackage").exists()
    published.files["/Half.mlpackage.zip"] = packages["Half"]
    assert run_bench("fetch-published")[0] == 0
    assert files(published_folder()) == before


def test_a_file_that_changed_here_is_refused_and_kept(run_bench, published):
    run_bench("fetch-published")
    weights = weight_file("Half")
    weights.write_bytes(weights.read_bytes()[:-1])
    size = weights.stat().st_size
    code, output, errors = run_bench("fetch-published")
    (line,) = errors.splitlines()
    assert code == 1
    assert "Half.mlpackage is not what was downloaded" in line
    assert output.count("was there, unchanged") == 2
    assert weights.stat().st_size == size


def test_a_foreign_file_changes_no_package(run_bench, published, tmp_path):
    run_bench("fetch-published")
    package = published_folder() / "Half.mlpackage"
    for name in (".DS_Store", "notes.txt", "Data/com.apple.CoreML/weights/._weight.bin"):
        (package / name).write_bytes(b"foreign")
    code, output, errors = run_bench("fetch-published")
    assert (code, errors, output.count("was there, unchanged")) == (0, "", 3)
    for fetched in published_packages("tiny"):
        fetched.check()


def test_a_lock_file_that_counted_every_file_is_read(run_bench, published):
    """One from before 0.2, of an archive with a foreign file in it."""
    run_bench("fetch-published")
    package = published_folder() / "Half.mlpackage"
    (package / ".DS_Store").write_bytes(b"foreign")
    lock = published_folder() / "published.lock.json"
    lock.write_text(lock.read_text().replace(tree_hash(package), tree_hash_of_all(package)))
    assert tree_hash_of_all(package) in lock.read_text()
    assert run_bench("fetch-published")[0] == 0
    weight_file("Half").write_bytes(b"damaged")
    assert run_bench("fetch-published")[0] == 1


def test_one_missing_file_costs_that_file_alone(run_bench, published):
    del published.files["/Dense.mlpackage.zip"]
    code, output, errors = run_bench("fetch-published", "--json")
    assert (code, [file["file"] for file in json.loads(output)]) == (1, ["Half.mlpackage", "Half.yaml"])
    assert errors == f"failed: {published.address}/Dense.mlpackage.zip: the server answers 404 Not Found\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of(("../x", b"1")), "leads out of the folder"),
        (zip_of(("x", b"1")), "holds 0 Core ML packages; expected one"),
        (b"<html>Sign in to this network</html>", "neither zip nor tar"),
    ],
)
def test_a_bad_archive_is_neither_kept_nor_taken_for_the_first_one(run_bench, published, packages, content, message):
    published.files["/Half.mlpackage.zip"] = content
    code, _, errors = run_bench("fetch-published")
    assert (code, message in errors) == (1, True)
    published.files["/Half.mlpackage.zip"] = packages["Half"]
    code, _, errors = run_bench("fetch-published")
    assert (code, errors) == (0, "")


def test_a_server_that_cannot_be_reached_is_one_line(refused, published):
    published.close()
    line = refused("fetch-published")
    assert f"{published.address}/Dense.mlpackage.zip" in line
    assert "5 times in a row" in line


def test_two_at_once_download_each_file_once(published):
    started = threading.Barrier(2, timeout=10)
    waited: list[str] = []
    results = []

    def one() -> None:
        started.wait()
        results.append(fetch(read_table(), published_folder(), say=waited.append))

    published.before_answer = lambda: threading.Event().wait(0.05)
    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path for path, _ in published.requests) == sorted(published.files)
    assert [problems for _, problems in results] == [[], []]
    assert len(waited) == 1


def test_a_call_that_was_killed_while_unpacking_is_gone_on_with(run_bench, published, monkeypatch):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("coreml_prune_bench.published.packages.os.replace", killed)
        code, _, errors = run_bench("fetch-published")
    assert "interrupted" in errors or code != 0
    assert run_bench("fetch-published")[0] == 0
    assert sorted(path.name for path in (published_folder() / ".incoming").iterdir()) == []


def test_a_damaged_lock_file_is_named(refused, run_bench, published):
    run_bench("fetch-published")
    (published_folder() / "published.lock.json").write_text("{")
    line = refused("fetch-published")
    assert "published.lock.json is not a lock of published packages: Invalid JSON" in line
    assert "restore it, or remove" in line
