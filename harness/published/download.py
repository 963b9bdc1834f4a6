"""One file from an HTTP server: resumed where it was cut off, retried, and either whole or not there.

What a file holds, and whether it is the right one, is for the caller to judge.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
from pydantic import BaseModel, ValidationError

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.models.download_limits import limit_s, too_slow

_TIMEOUT_SECONDS = 30
_ATTEMPTS = 5
"""In a row, without a byte more."""
_KEPT = "what has come is kept, the same command goes on from there"
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})

Progress = Callable[[int, int | None], None]
"""Called with bytes done, and in all where the server says."""


class DownloadError(BenchError):
    """The server has no such file, or sends something that cannot be trusted to be whole. Other files may do."""


class UnreachableError(BenchError):
    """The connection fails again and again, or is too slow, as for the next file too. What has come is kept."""


class _InterruptedError(Exception):
    """Worth another try."""


class _Begun(BaseModel):
    """What a partial file is the beginning of. validator: its ETag or date, without which it cannot be continued."""

    url: str
    validator: str
    total_bytes: int


def download(
    url: str,
    path: Path,
    progress: Progress = lambda done, total: None,
    *,
    limit_bytes: int,
) -> None:
    """The file at `url` as `path`, continuing what an earlier call began.

    Raises DownloadError for an answer that trying again does not mend, UnreachableError when trying again was in vain.
    """
    part = path.with_name(f"{path.name}.part")
    failures = 0
    started_s = time.monotonic()

    def watched(done: int, total: int | None) -> None:
        progress(done, total)
        allowed_s = limit_s(limit_bytes if total is None else total)
        if time.monotonic() - started_s > allowed_s:
            raise UnreachableError(f"{url}: {too_slow(allowed_s)}; {_KEPT}")

    with httpx2.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=True) as client:
        while True:
            before = _size(part)
            try:
                _continue(client, url, part, watched, limit_bytes)
                break
            except _InterruptedError as error:
                failures = 0 if _size(part) > before else failures + 1
                if failures == _ATTEMPTS:
                    raise UnreachableError(f"{url}: {error}, {_ATTEMPTS} times in a row; {_KEPT}") from error
                _pause(failures)
    os.replace(part, path)
    _begun_file(part).unlink(missing_ok=True)


def _pause(failures: int) -> None:
    """Longer each time; drawn, so that many who were cut off at once do not come back at once."""
    time.sleep(2**failures * random.uniform(0.25, 0.5))


def _continue(client: httpx2.Client, url: str, part: Path, progress: Progress, limit_bytes: int) -> None:
    """One attempt. Returns when `part` is whole."""
    begun = _read_begun(part)
    have = _size(part) if begun and begun.url == url else 0
    if begun and have and have == begun.total_bytes:
        return
    headers = {"Accept-Encoding": "identity"}  # a range is one of the file itself
    if begun and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": begun.validator}
    try:
        with client.stream("GET", url, headers=headers) as response:
            _check_answer(url, response, part)
            start = _start(response, have, part)
            total = _total_bytes(response, start)
            if total is None and response.headers.get("Transfer-Encoding") != "chunked":
                raise DownloadError(f"{url}: the server does not say how long the file is, so that half cannot be told")
            _check_size(url, total or 0, limit_bytes)
            if not start:
                part.unlink(missing_ok=True)  # first, so that its bytes are never taken for this file's
            _write_begun(part, url, response, total)
            done = start
            with part.open("ab" if start else "wb") as file:
                for chunk in response.iter_raw():  # a chunk size would keep back the last bytes before a cut
                    done += len(chunk)
                    _check_size(url, done, limit_bytes)
                    file.write(chunk)
                    progress(done, total)
    except httpx2.TransportError as error:
        raise _InterruptedError(str(error) or type(error).__name__) from error
    except httpx2.RequestError as error:
        raise DownloadError(f"{url}: {error}") from error
    if total is not None and done != total:
        raise _InterruptedError(f"{done:,} of {total:,} bytes came")


def _check_answer(url: str, response: httpx2.Response, part: Path) -> None:
    answer = f"the server answers {response.status_code} {response.reason_phrase}"
    if response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
        raise _begin_anew(part, answer)
    if response.status_code in _WORTH_ANOTHER_TRY:
        raise _InterruptedError(answer)
    if response.status_code not in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
        raise DownloadError(f"{url}: {answer}")
    if url.startswith("https:") and response.url.scheme != "https":
        raise DownloadError(f"{url}: the server leads to {response.url}, which is not encrypted")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{url}: the server sends it {response.headers['Content-Encoding']}-encoded, unasked")


def _start(response: httpx2.Response, have: int, part: Path) -> int:
    """Where in the file the answer starts: 0 from a server that knows no ranges, or whose file is another by now."""
    if response.status_code != httpx2.codes.PARTIAL_CONTENT:
        return 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise _begin_anew(part, "the server sends another part of the file than it was asked for")
    return have


def _begin_anew(part: Path, reason: str) -> _InterruptedError:
    _begun_file(part).unlink(missing_ok=True)
    return _InterruptedError(reason)


def _total_bytes(response: httpx2.Response, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None else None


def _check_size(url: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise DownloadError(f"{url}: {size_bytes:,} bytes or more; expected at most {limit_bytes:,}")


def _write_begun(part: Path, url: str, response: httpx2.Response, total: int | None) -> None:
    """What a later call may continue; to be written before the first byte."""
    # RFC 9110, 13.1.5: a weak ETag does not say that the bytes are the same.
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    if validator and total is not None:
        write_atomically(_begun_file(part), _Begun(url=url, validator=validator, total_bytes=total).model_dump_json())
    else:
        _begun_file(part).unlink(missing_ok=True)


def _read_begun(part: Path) -> _Begun | None:
    try:
        return _Begun.model_validate_json(_begun_file(part).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _begun_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
