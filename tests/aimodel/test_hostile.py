"""`.aimodel` files that are damaged or mean harm: every kind of harm is refused in a line that names what is wrong.

`test_fuzz.py` looks for kinds of damage that nobody has thought of; `make bounds` measures time and memory.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.aimodel import process
from coreml_prune_bench.aimodel.programs import read_package, read_program
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.mlprogram.named import BYTECODE
from coreml_prune_bench.runtimes.portable import load
from tests.aimodel.bombs import BOMBS
from tests.aimodel.packages import from_text, graph, stamped
from tests.aimodel.test_fuzz import small_classifier

RELU = "%y = coreai.relu %x : (tensor<4xf32>) -> tensor<4xf32>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_classifier(tmp_path_factory.mktemp("intact") / "m.aimodel")


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "copy.aimodel"))


def refusal(package: Path) -> str:
    with pytest.raises(PackageError) as raised:
        read_program(package)
    message = str(raised.value)
    assert str(package) in message
    assert "\n" not in message
    return message


def _outside(package: Path, name: str) -> None:
    """A link to a file that is as it should be, but lies elsewhere."""
    shutil.move(package / name, package.parent / name)
    (package / name).symlink_to(package.parent / name)


def _pipe(package: Path, name: str) -> None:
    (package / name).unlink()
    os.mkfifo(package / name)


def _device(package: Path, name: str) -> None:
    (package / name).unlink()
    (package / name).symlink_to("/dev/zero")


def _folder(package: Path, name: str) -> None:
    (package / name).unlink()
    (package / name).mkdir()


def _circle(package: Path, name: str) -> None:
    (package / name).unlink()
    (package / name).symlink_to(name)


HARMS: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "a link that leads out": (_outside, "lies outside the package"),
    "a pipe": (_pipe, "is missing"),
    "a device": (_device, "lies outside the package"),
    "a folder": (_folder, "is missing"),
    "a link to itself": (_circle, "has a name that no file can have|is missing"),
    "a pointer": (lambda package, name: (package / name).write_bytes(POINTER), "is a Git LFS pointer"),
    "nothing": (lambda package, name: (package / name).write_bytes(b""), "damaged|expected 32|cannot read"),
}


@pytest.mark.parametrize("file", [BYTECODE, "main.hash", "metadata.json"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_none_of_the_package(copy: Path, file: str, harm: str) -> None:
    make, words = HARMS[harm]
    make(copy, file)
    message = refusal(copy)
    assert any(word in message for word in words.split("|")), message
    assert file in message
    for read in (load, read_package):
        with pytest.raises(PackageError):
            read(copy)


def test_hashes_of_another_size_or_program(copy: Path) -> None:
    (copy / "main.hash").write_bytes(b"1" * 33)
    assert "main.hash has 33 bytes, expected 32; the package is damaged" in refusal(copy)
    (copy / "main.hash").write_bytes(b"1" * 32)
    assert "main.mlirb is not the file that main.hash is of; the package is damaged" in refusal(copy)


@pytest.mark.parametrize(
    "content",
    [b"[", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"creatorDefinedMetadata": []}', b" " * ((4 << 20) + 1)]
    + [b'{"creatorDefinedMetadata": {"coreml-prune-bench": %s}}' % own for own in (b"5", b'{"weights": 5}')],
)
def test_metadata_of_every_wrong_kind(copy: Path, content: bytes) -> None:
    (copy / "metadata.json").write_bytes(content)
    assert "metadata.json" in refusal(copy)


def test_an_image_that_the_program_does_not_take(copy: Path) -> None:
    """What names no input names nothing; what names one that is no image is refused."""
    package = from_text(copy.parent / "own.aimodel", graph(RELU), {"image": "x"})
    assert "its image input 'x' is fp32 [4]" in refusal(package)
    (package / "metadata.json").write_text('{"creatorDefinedMetadata": {"coreml-prune-bench": {"image": ["x"]}}}')
    assert read_program(package).inputs[0].kind == "array"


@pytest.mark.parametrize(
    ("place", "name"),
    [("input", "\\1B[31mred"), ("input", "n" * 1001), ("output", "two\\0Alines"), ("function", "\\E2\\80\\AEdesrever")],
)
def test_names_that_no_terminal_should_see(place: str, name: str, tmp_path: Path) -> None:
    module = graph(RELU)
    old = {"input": '"x"', "output": '"y"', "function": "@main"}[place]
    new = f'@"{name}"' if place == "function" else f'"{name}"'
    message = refusal(from_text(tmp_path / "m.aimodel", module.replace(old, new)))
    assert "a value is called" in message
    assert message.isprintable()


def test_names_that_are_no_text_of_the_file_system(copy: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(copy.parent) + b"/\xff\xfe\x1b[31m.aimodel"))
    os.rename(copy, odd)
    program = read_program(odd)
    assert [feature.name for feature in program.inputs] == ["x"]


def test_a_package_of_one_format_that_is_called_one_of_the_other(copy: Path, package: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(package, tmp_path / "core-ml.aimodel"))
    assert "is called a .aimodel, but holds a .mlpackage: call it core-ml.mlpackage" in refusal(wrong)
    wrong = Path(shutil.copytree(copy, tmp_path / "core-ai.mlpackage"))
    assert "is called a .mlpackage, but holds a .aimodel: call it core-ai.aimodel" in refusal(wrong)


def test_what_lies_in_the_place_of_a_package(copy: Path, tmp_path: Path) -> None:
    assert "no such package" in refusal(tmp_path / "none.aimodel")
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", copy)).rename(tmp_path / "zipped.aimodel")
    assert "is an archive, expected the folder of a .mlpackage or .aimodel; unpack it first" in refusal(archive)
    assert f"is a file of a package, expected the folder of a .mlpackage or .aimodel; give {copy}" in refusal(
        copy / BYTECODE
    )
    (tmp_path / "empty.aimodel").mkdir()
    assert "a .aimodel without its program main.mlirb" in refusal(tmp_path / "empty.aimodel")
    (copy / BYTECODE).write_bytes(b"")
    with (copy / BYTECODE).open("r+b") as file:
        file.truncate((4 << 30) + 1)  # of holes
    assert "main.mlirb has 4,294,967,297 bytes, more than 4 GiB" in refusal(copy)


@pytest.mark.parametrize("kept", [0, 3, 13, 1000, -1])
def test_a_truncated_program(copy: Path, kept: int) -> None:
    (copy / BYTECODE).write_bytes((copy / BYTECODE).read_bytes()[:kept])
    assert "damaged" in refusal(stamped(copy))


BOUNDED = {
    "aimodel: a splat of 10^12 elements": "shape [4, 250000000000] is beyond 8 GiB",
    "aimodel: 12 splats of 64 MiB": "its constants that repeat one number are too large",
    "aimodel: graphs of nothing that invoke each other 2^40 times": "more than 100,000 operations",
    "aimodel: a graph that invokes itself": "its graphs invoke each other deeper than 40",
    "aimodel: branches in each other": "its branches and loops are nested too deep",
}


@pytest.mark.parametrize("bomb", BOUNDED)
def test_what_asks_for_far_more_than_it_holds(bomb: str, tmp_path: Path) -> None:
    assert BOUNDED[bomb] in refusal(BOMBS[bomb](tmp_path / "m.aimodel"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process was ended by SIGSEGV; the package is"),
        ("while True: pass", "its process was ended by SIGXCPU after 1 s and more"),
        ("import sys; sys.stderr.write('x' * (80 << 20)); sys.exit(3)", "Core AI cannot read its program: "),
        ("open(sys.argv[2] + '/constants.bin', 'wb').write(bytes(80 << 20))", "File too large"),
        ("bytearray(3 << 30)", "MemoryError"),
    ],
)
def test_a_reader_that_crashes_or_does_not_end(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    """In place of Apple's reader, with the limits that ours sets before it starts."""
    source = Path(process.unpack.__file__).read_text()
    limits = source[: source.index("class Unpacked")]
    script = tmp_path / "unpack.py"
    script.write_text(f"{limits}\n_limit(int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))\n{code}\n")
    monkeypatch.setattr(process.unpack, "__file__", str(script))
    monkeypatch.setattr(process, "_FREE_PROCESSOR_S", 1)
    message = refusal(copy)
    assert words in message
    assert len(message) < 1000


def test_without_apple_s_packages_a_line_says_how_to_get_them(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None)
    for machine, words in (("x86_64", "pip install 'coreml-prune-bench"), ("aarch64", "not for Linux on aarch64")):
        monkeypatch.setattr(process.platform, "machine", lambda found=machine: found)
        for read in (load, read_package):
            with pytest.raises(BenchError, match="needs coreai-core") as raised:
                read(copy)
            assert words in str(raised.value)


def test_a_constant_of_a_type_that_is_not_known_is_named(tmp_path: Path) -> None:
    body = """%c = coreai.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xbf16>
        %f = coreai.cast %c : tensor<4xbf16> to tensor<4xf32>
        %y = coreai.decomposable.broadcasting_add %x, %f : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>"""
    package = from_text(tmp_path / "m.aimodel", graph(body))
    assert "has element type bf16, which cannot be read yet" in refusal(package)


def test_the_copy_runs(copy: Path) -> None:
    """Else all that was refused above would be for another reason."""
    model = load(copy, cache=False)
    assert model.predict_batch({"x": np.zeros((2, 8, 8, 3), np.uint8)})["y"].shape == (2, 12)
    assert json.loads((copy / "metadata.json").read_text())["creatorDefinedMetadata"]
