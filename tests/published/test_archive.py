"""Archives that lie."""

import io
import re
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from coreml_prune_bench.published.archive import ArchiveError, unpack
from tests.published.samples import CONTENT, zip_of


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
