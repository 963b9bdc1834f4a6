"""One file over HTTP that breaks."""

from pathlib import Path

import pytest

import coreml_prune_bench.published.download
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.published.download import DownloadError, UnreachableError, download
from tests.published.samples import CONTENT
from tests.published.server import Server


@pytest.fixture
def target(server, tmp_path):
    server.files["/f"] = CONTENT
    return tmp_path / "f"


MANY = 1 << 30


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


def test_a_download_that_trickles_is_given_up_and_goes_on_in_the_next_call(server, target, monkeypatch):
    server.cuts = [1_000_000]  # so that there are two attempts, which have one limit together
    with monkeypatch.context() as patch:
        patch.setattr(coreml_prune_bench.published.download, "limit_s", lambda size_bytes: 0.0)
        with pytest.raises(UnreachableError, match=r"not finished after 0 s, .*what has come is kept"):
            get(server, target)
    assert not target.exists()
    get(server, target)
    assert target.read_bytes() == CONTENT
