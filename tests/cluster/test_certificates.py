"""Who may speak with a cluster: files for their owner alone, dates, and a line for each thing that is not right."""

import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from coreml_prune_bench.cluster import certificates
from coreml_prune_bench.cluster.certificates import CERTIFICATE, KEY, make_certificates, security_of
from coreml_prune_bench.core.errors import BenchError


def test_files_are_their_owner_s_alone_and_never_written_over(tmp_path):
    folder = tmp_path / "new" / "cluster"
    make_certificates(folder)
    assert [oct(os.stat(path).st_mode & 0o777) for path in (folder, folder / KEY, folder / CERTIFICATE)] == [
        "0o700",
        "0o600",
        "0o600",
    ]
    before = (folder / KEY).read_bytes()
    with pytest.raises(FileExistsError):
        make_certificates(folder)
    assert (folder / KEY).read_bytes() == before


def test_each_side_has_to_show_the_certificate(tmp_path):
    make_certificates(tmp_path)
    security = security_of(tmp_path)
    assert security.require_encryption
    for role in ("scheduler", "worker", "client"):
        assert security.get_connection_args(role)["ssl_context"].verify_mode == ssl.CERT_REQUIRED
        listens = security.get_listen_args("scheduler")["ssl_context"]
        assert listens.verify_mode == ssl.CERT_REQUIRED


def test_it_ends(tmp_path):
    make_certificates(tmp_path, valid=timedelta(minutes=-1))
    with pytest.raises(BenchError, match=r"cluster.pem expired at \d{4}-.* UTC: remove it and cluster-key.pem"):
        security_of(tmp_path)


def test_a_stopped_clock(tmp_path, monkeypatch):
    make_certificates(tmp_path)

    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(certificates, "datetime", Stopped)
    with pytest.raises(BenchError, match="and the clock of this machine says 2020-01-01 00:00: set the clock"):
        security_of(tmp_path)


def test_a_key_that_others_can_read(tmp_path):
    make_certificates(tmp_path)
    (tmp_path / KEY).chmod(0o640)
    with pytest.raises(BenchError, match="can be read by others, who could run anything on every worker: chmod 600"):
        security_of(tmp_path)


def test_where_there_is_none(tmp_path):
    with pytest.raises(BenchError, match=r"no cluster.pem in .*: `cluster start` makes it, copy the folder"):
        security_of(tmp_path)


def test_what_is_no_certificate(tmp_path):
    make_certificates(tmp_path)
    (tmp_path / CERTIFICATE).write_text("hello")
    with pytest.raises(BenchError, match="is no certificate"):
        security_of(tmp_path)
