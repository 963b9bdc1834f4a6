"""The one certificate of a cluster: who has it and its key may send tasks, which are code, to every worker.

It is its own authority, and each side shows it to the other. It is made on the machine that starts the cluster and
copied, by hand, to those that join.
"""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from coreml_prune_bench.core.errors import BenchError

if TYPE_CHECKING:
    from distributed import Security

CERTIFICATE, KEY = "cluster.pem", "cluster-key.pem"

_VALID = timedelta(days=90)
_EARLIER = timedelta(minutes=5)
"""Clocks of machines that are set by the network differ by less."""


def make_certificates(folder: Path, valid: timedelta = _VALID) -> None:
    """Write certificate and key into `folder`, for their owner alone. Raises OSError where one of them is there."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coreml-prune-bench cluster")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + valid) - _EARLIER)
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, bare = serialization.Encoding.PEM, serialization.NoEncryption()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder / KEY, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, bare))
    _write(folder / CERTIFICATE, certificate.public_bytes(pem))


def are_made(folder: Path) -> bool:
    return (folder / CERTIFICATE).exists() or (folder / KEY).exists()


def security_of(folder: Path) -> "Security":
    """What Dask needs to speak TLS both ways, and nothing else. Raises BenchError that says what is not right."""
    from distributed import Security

    certificate, key = folder / CERTIFICATE, folder / KEY
    for file in (certificate, key):
        if not file.is_file():
            raise BenchError(
                f"no {file.name} in {folder}: `cluster start` makes it, copy the folder from there (--certificates)"
            )
    if key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BenchError(f"{key} can be read by others, who could run anything on every worker: chmod 600 {key}")
    _check_dates(certificate)
    ca, own, secret = str(certificate), str(certificate), str(key)
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        **{f"tls_{role}_cert": own for role in ("scheduler", "worker", "client")},
        **{f"tls_{role}_key": secret for role in ("scheduler", "worker", "client")},
    )


def _check_dates(file: Path) -> None:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError as error:
        raise BenchError(f"{file} is no certificate: {error}") from error
    now, begins, ends = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        raise BenchError(
            f"{file} expired at {ends:%Y-%m-%d %H:%M} UTC: remove it and {KEY}, `cluster start` makes new ones to copy"
        )
    if now < begins:
        raise BenchError(
            f"{file} is valid from {begins:%Y-%m-%d %H:%M} UTC on, and the clock of this machine says "
            f"{now:%Y-%m-%d %H:%M}: set the clock"
        )


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
