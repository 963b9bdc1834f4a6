"""Fetching the published packages over HTTP that breaks, archives that lie, and measuring what was fetched."""

import hashlib
import io
import json
import re
import shutil
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import coremltools as ct
import numpy as np
import PIL.Image
import pytest

import coreml_prune_bench.published.archive
import coreml_prune_bench.published.download
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.published.archive import ArchiveError, unpack
from coreml_prune_bench.published.download import DownloadError, UnreachableError, download
from coreml_prune_bench.published.packages import fetch, published_folder
from coreml_prune_bench.published.table import read_table
from coreml_prune_bench.records.accuracy import read_records
from tests.tiny_network import TINY

MANY = 1 << 30
CONTENT = np.random.default_rng(0).bytes(3_000_000)


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is what these tests are about."""


class Server:
    """Files by path. cuts: bytes after which each request is cut off, in turn. answers: statuses instead, in turn."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.answers: list[int] = []
        self.knows_ranges = True
        self.weak = False
        self.length: str | None = "Content-Length"
        self.requests: list[tuple[str, str | None]] = []  # (path, Range)
        self.before_answer = lambda: None
        self._http = _Quiet(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers.get("Range")))
                server.before_answer()
                content = server.files.get(self.path)
                status = server.answers.pop(0) if server.answers else 200 if content is not None else 404
                if content is None or status != 200:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                etag = ("W/" if server.weak else "") + f'"{hashlib.md5(content).hexdigest()}"'
                start = 0
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                if server.knows_ranges and asked and self.headers["If-Range"] == etag:
                    start = int(asked[1])
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("ETag", etag)
                body = content[start:]
                if server.length == "Content-Length":
                    self.send_header("Content-Length", str(len(body)))
                elif server.length == "chunked":
                    self.send_header("Transfer-Encoding", "chunked")
                    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
                self.end_headers()
                self.close_connection = server.length is None
                if server.cuts:
                    body = body[: server.cuts.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

        return Handler


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(coreml_prune_bench.published.download, "_pause", lambda failures: None)
    server = Server()
    yield server
    server.close()


# --- one file


@pytest.fixture
def target(server, tmp_path):
    server.files["/f"] = CONTENT
    return tmp_path / "f"


def get(server: Server, target: Path, limit_bytes: int = MANY) -> None:
    download(f"{server.address}/f", target, limit_bytes=limit_bytes)


def alone(target: Path) -> bool:
    """Whether nothing lies beside the file."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_that_is_cut_off_twice_goes_on_where_it_was(server, target):
    server.cuts = [1_000_000, 500_000]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert [range_ for _, range_ in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert alone(target)


def test_a_download_that_was_killed_goes_on_in_the_next_call(server, target, monkeypatch):
    def killed(failures: int) -> None:
        raise KeyboardInterrupt

    server.cuts = [1_000_000]
    with monkeypatch.context() as patch:
        patch.setattr(coreml_prune_bench.published.download, "_pause", killed)
        with pytest.raises(KeyboardInterrupt):
            get(server, target)
    assert not target.exists()
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[-1] == ("/f", "bytes=1000000-")


@pytest.mark.parametrize("why", ["no ranges", "a weak ETag", "no length said before"])
def test_what_cannot_be_continued_starts_again(server, target, why):
    server.cuts = [1_000_000]
    server.knows_ranges = why != "no ranges"
    server.weak = why == "a weak ETag"
    server.length = "chunked" if why == "no length said before" else "Content-Length"
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_file_that_changed_meanwhile_is_not_glued_together(server, target):
    def change() -> None:
        if len(server.requests) == 2:
            server.files["/f"] = b"another file"

    server.cuts = [1_000_000]
    server.before_answer = change
    get(server, target)
    assert target.read_bytes() == b"another file"


def test_a_call_that_is_killed_as_it_starts_again_does_not_glue_either(server, target, monkeypatch):
    def change() -> None:
        if len(server.requests) == 2:
            server.files["/f"] = CONTENT[::-1]

    def killed_the_second_time(path: Path, text: str) -> None:
        write_atomically(path, text)
        if len(server.requests) == 2:
            raise KeyboardInterrupt

    server.cuts = [1_000_000]
    server.before_answer = change
    with monkeypatch.context() as patch:
        patch.setattr(coreml_prune_bench.published.download, "write_atomically", killed_the_second_time)
        with pytest.raises(KeyboardInterrupt):
            get(server, target)
    get(server, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_an_empty_file_is_one(server, target):
    server.files["/f"] = b""
    get(server, target)
    assert target.read_bytes() == b""


def test_a_partial_file_of_another_address_is_not_continued(server, target):
    server.files["/other"] = CONTENT[::-1]
    server.cuts = [1_000, 0, 0, 0, 0, 0]
    with pytest.raises(UnreachableError):
        download(f"{server.address}/other", target, limit_bytes=MANY)
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, target):
    server.answers = [503, 429, 500]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_a_range_that_the_server_cannot_satisfy_starts_again(server, target):
    server.cuts = [1_000]
    server.answers = [200, 416]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert [range_ for _, range_ in server.requests] == [None, "bytes=1000-", None]


def test_five_attempts_without_a_byte_more_are_enough(server, target):
    server.cuts = [1_000, 0, 0, 0, 0, 0]
    with pytest.raises(UnreachableError, match="5 times in a row; what has come is kept"):
        get(server, target)
    assert len(server.requests) == 6


def test_a_missing_file_is_not_asked_for_again(server, target):
    server.files.clear()
    with pytest.raises(DownloadError, match=r"/f: the server answers 404 Not Found"):
        get(server, target)
    assert len(server.requests) == 1


def test_a_length_that_nobody_says_is_refused_for_half_a_file_would_pass(server, target):
    server.length = None
    with pytest.raises(DownloadError, match="does not say how long"):
        get(server, target)


@pytest.mark.parametrize("length", ["Content-Length", "chunked"])
def test_a_file_beyond_the_limit_is_refused(server, target, length):
    server.length = length
    with pytest.raises(DownloadError, match="expected at most 1,000"):
        get(server, target, limit_bytes=1000)
    assert not target.exists()


# --- archives


def zip_of(*entries: tuple[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def tar_of(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    member.size = len(content)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def tar_member(name: str, type_: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = type_, linkname
    return member


def half(archive: bytes) -> bytes:
    return archive[: len(archive) // 2]


def flip_a_byte(archive: bytes) -> bytes:
    middle = len(archive) // 2
    return archive[:middle] + bytes([archive[middle] ^ 255]) + archive[middle + 1 :]


BAD_ARCHIVES = {
    "zip, up": (zip_of(("a/../../x", b"1")), "leads out of the folder"),
    "zip, absolute": (zip_of(("/x", b"1")), "leads out of the folder"),
    "zip, backslashes": (zip_of(("..\\x", b"1")), "leads out of the folder"),
    "zip, link": (zip_of(("x", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), "is a link or device"),
    "zip, bomb": (zip_of(("x", bytes(2_000_000))), "unpacks to more than 1,000,000 bytes"),
    "zip, many files": (zip_of(*((f"{n}/", b"") for n in range(10_001))), "more than 10,000 files"),
    "zip, file and folder": (zip_of(("x", b"1"), ("x/y", b"1")), "names 'x' twice"),
    "zip, half": (half(zip_of(("x", CONTENT[:9999]))), "is damaged"),
    "zip, a bit": (flip_a_byte(zip_of(("x", CONTENT[:9999]))), "is damaged"),
    "zip, long name": (zip_of(("x" * 300, b"1")), "cannot be unpacked"),
    "tar, up": (tar_of(tar_member("../x"), b"1"), "leads out of the folder"),
    "tar, absolute": (tar_of(tar_member("/x"), b"1"), "leads out of the folder"),
    "tar, symbolic link": (tar_of(tar_member("x", tarfile.SYMTYPE, "/etc")), "is a link or device"),
    "tar, hard link": (tar_of(tar_member("x", tarfile.LNKTYPE, "/etc/passwd")), "is a link or device"),
    "tar, device": (tar_of(tar_member("x", tarfile.CHRTYPE)), "is a link or device"),
    "tar, bomb": (tar_of(tar_member("x"), bytes(2_000_000)), "unpacks to more than 1,000,000 bytes"),
    "tar, half": (half(tar_of(tar_member("x"), CONTENT[:9999])), "is damaged"),
    "neither": (b"<html>Not found</html>", "neither zip nor tar"),
    "nothing": (b"", "neither zip nor tar"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_an_archive_that_cannot_be_trusted_is_refused_and_writes_nothing_outside(tmp_path, case):
    content, message = BAD_ARCHIVES[case]
    (tmp_path / "inner" / "folder").mkdir(parents=True)
    archive = tmp_path / "inner" / "an.archive"
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match=re.escape(message)) as raised:
        unpack(archive, tmp_path / "inner" / "folder", limit_bytes=1_000_000)
    assert "an.archive" in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner"]
    assert sorted(path.name for path in (tmp_path / "inner").iterdir()) == ["an.archive", "folder"]
    assert not any(path.is_symlink() for path in (tmp_path / "inner" / "folder").rglob("*"))


def test_sizes_are_counted_and_not_believed(tmp_path):
    """A bomb whose directory says that its file is small."""
    archive = bytearray(zip_of(("x", bytes(2_000_000))))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = archive.index(signature) + offset
        archive[place : place + 4] = (100).to_bytes(4, "little")
    (tmp_path / "lying.zip").write_bytes(archive)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "lying.zip", tmp_path / "folder", limit_bytes=1_000_000)
    assert sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*")) <= 1_000_000


@pytest.mark.parametrize("kind", ["zip", "gztar", "bztar", "xztar", "tar"])
def test_a_good_archive_is_unpacked_without_what_macos_adds(tmp_path, kind):
    (tmp_path / "in" / "m.mlpackage" / "Data").mkdir(parents=True)
    (tmp_path / "in" / "m.mlpackage" / "Data" / "x").write_bytes(CONTENT[:5000])
    (tmp_path / "in" / "m.mlpackage" / "._x").write_text("resource fork")
    (tmp_path / "in" / "__MACOSX").mkdir()
    (tmp_path / "in" / "__MACOSX" / "y").write_text("y")
    archive = Path(shutil.make_archive(str(tmp_path / "a"), kind, tmp_path / "in"))
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out", limit_bytes=1_000_000)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [
        tmp_path / "out" / "m.mlpackage" / "Data" / "x"
    ]
    assert (tmp_path / "out" / "m.mlpackage" / "Data" / "x").read_bytes() == CONTENT[:5000]


# --- the published table's files

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


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weight_file(name: str) -> Path:
    return published_folder() / f"{name}.mlpackage/Data/com.apple.CoreML/weights/weight.bin"


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
    assert "published.lock.json is damaged" in refused("fetch-published")


# --- measured beside ours


@pytest.fixture
def suite(tmp_path) -> Path:
    path = tmp_path / "published.toml"
    path.write_text('description = "d"\nmodels = ["tiny"]\npackages = "published"\n')
    return path


@pytest.fixture
def imagenet(tmp_path) -> str:
    """Three images of a data set of 1,000 classes."""
    draw = np.random.default_rng(0)
    for label in (0, 7, 999):
        folder = tmp_path / "imagenet" / "val" / f"c{label}"
        folder.mkdir(parents=True)
        PIL.Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "x.png")
    (tmp_path / "imagenet" / "classes.txt").write_text("\n".join(f"c{label}" for label in range(1000)))
    return f"imagefolder:{tmp_path / 'imagenet'}"


def test_a_run_measures_the_packages_as_they_are(run_bench, published, suite, imagenet, tmp_path):
    run_bench("fetch-published")
    arguments = ("run", "--suite", suite, "--data", imagenet, "--results", tmp_path / "r")
    code, output, errors = run_bench(*arguments, "--format", "json")
    assert code == 0, errors
    dense, half_ = json.loads(output)
    assert (dense["algorithm"], dense["algorithm_title"], dense["sparsity"]) == ("dense", "published package", 0)
    assert half_["algorithm_title"] == "MagnitudePruner, published package"
    assert (half_["algorithm"], half_["config"], half_["sparsity"]) == ("published", "Unstructured Sparsity 50%", 0.5)
    dense_bytes, half_bytes = (weight_file(name).stat().st_size for name in ("Dense", "Half"))
    assert half_["compression_ratio"] == dense_bytes / half_bytes
    assert half_["scope"] == "2 of 4 weights, as found"  # coremltools leaves those of 2048 elements or fewer dense
    assert half_["full_validation_set"] is False
    assert not list((tmp_path / "r").rglob("*.mlpackage"))
    again = run_bench(*arguments, "--format", "json")
    assert again[:2] == (0, output)
    assert "0 of 2 cells measured now" in again[2]
    record = next(r for r in read_records(tmp_path / "r") if r.pruning.sparsity)
    assert record.package
    assert [layer.storage for layer in record.package.layers] == ["sparse"] * 2
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.01) for layer in record.package.layers)
    assert record.network.weights == "as published"

    code, output, _ = run_bench("table", "--results", tmp_path / "r", "--compare", "published", "--format", "json")
    compared = {row["config"]: row for row in json.loads(output)}
    assert compared["Unstructured Sparsity 50%"]["published_top1_mean"] == 70.5
    assert compared["Float16"]["top1_difference"] == pytest.approx(dense["top1_mean"] - 71.5)


def test_build_says_where_the_packages_are(run_bench, published, suite, imagenet, tmp_path):
    run_bench("fetch-published")
    code, output, _ = run_bench("build", "--suite", suite, "--data", imagenet, "--results", tmp_path / "r", "--json")
    assert code == 0
    assert [Path(cell["package"]).name for cell in json.loads(output)] == ["Dense.mlpackage", "Half.mlpackage"]


def test_a_package_that_is_not_understood_costs_its_row_alone(
    run_bench, published, suite, imagenet, tmp_path, packages
):
    with zipfile.ZipFile(io.BytesIO(packages["Half"])) as archive:
        entries = [(name, archive.read(name).replace(b"relu", b"rely")) for name in archive.namelist()]
    published.files["/Half.mlpackage.zip"] = zip_of(*entries)
    run_bench("fetch-published")
    code, output, errors = run_bench(
        "run", "--suite", suite, "--data", imagenet, "--results", tmp_path / "r", "--format", "json"
    )
    assert code == 1
    assert "rely" in errors
    assert [row["failed_trials"] for row in json.loads(output)] == [0, 1]


def test_packages_that_were_not_fetched_or_were_changed_are_not_measured(
    refused, run_bench, published, suite, imagenet, tmp_path
):
    arguments = ("run", "--suite", suite, "--data", imagenet, "--results", tmp_path / "r")
    assert "Dense.mlpackage is not there: run `run_bench.py fetch-published` first" in refused(*arguments)
    run_bench("fetch-published")
    (published_folder() / "Dense.mlpackage/Manifest.json").write_text("{}")
    assert "Dense.mlpackage is not what was downloaded" in refused(*arguments)


def test_what_does_not_fit_published_packages_is_refused(refused, run_bench, published, suite, imagenet, tmp_path):
    run_bench("fetch-published")
    assert "leave out --weights" in refused("run", "--suite", suite, "--data", imagenet, "--weights", tmp_path)
    assert "digits has 10 classes" in refused("run", "--suite", suite, "--data", "digits")
    suite.write_text(suite.read_text() + '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n')
    assert 'or packages = "published" in their place' in refused("run", "--suite", suite, "--data", imagenet)
