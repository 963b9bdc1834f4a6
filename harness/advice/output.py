"""What `advise` leaves behind: the package, its config for Core ML Tools, a suite of all that was tried, the advice."""

import os
import shutil
from pathlib import Path
from typing import Any

import tomli_w

from coreml_prune_bench.advice.advice import Advice
from coreml_prune_bench.advice.search import Attempt
from coreml_prune_bench.bench.cells import Subject
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.formats.protocol import PackageFormat
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import is_foreign, refuse_folder, write_atomically
from coreml_prune_bench.data.halves import from_any_folder
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.coremltools_yaml import PRUNING, STORAGE

ADVICE, SUITE = "advice.json", "advise.toml"


def check_folder(folder: Path) -> None:
    """Raises BenchError where an advice cannot be written, or something else lies."""
    refuse_folder(folder, f"--out {folder}")
    others = folder.is_dir() and any(not is_foreign(path.name) for path in folder.iterdir())
    if others and not (folder / ADVICE).is_file():
        raise BenchError(f"{folder} holds something else than an advice: name another folder with --out")


def write_advice(
    folder: Path,
    advice: Advice,
    attempts: list[Attempt],
    subject: Subject,
    package_format: PackageFormat,
    package: Path | None,
    yaml: dict[str, str],
) -> None:
    """Write an advice, in place of an older one; other files of the folder stay. package, yaml: of what was chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    _put_package(folder / f"{subject.network.name}{package_format.suffix}", package)
    for name in (PRUNING, STORAGE):
        if name in yaml:
            write_atomically(folder / name, yaml[name])
        else:
            (folder / name).unlink(missing_ok=True)
    write_atomically(folder / SUITE, _suite([one.config for one in attempts], subject, package_format, advice.data))
    write_atomically(folder / ADVICE, advice.model_dump_json(indent=1) + "\n")


def _put_package(place: Path, package: Path | None) -> None:
    """The package in its place, whole or not at all; None: none is there afterwards."""
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        if package is not None:
            shutil.copytree(package, unfinished)
        shutil.rmtree(place, ignore_errors=True)
        if package is not None:
            os.replace(unfinished, place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _suite(configs: list[PruningConfig], subject: Subject, package_format: PackageFormat, data: str) -> str:
    """A suite file with these configs: `run` makes the same cells of it."""
    content: dict[str, Any] = {
        "description": f"What was tried to find a package of {subject.network.title}",
        "models": [_in_any_folder(subject.network.spec)],
        "weights": "pretrained" if subject.pretrained else "none",
        "trials": 1,
        "image_size": subject.data.image_size,
        "data": {"default": from_any_folder(f"{data}#selection")},
    }
    if package_format is not MLPACKAGE:
        content["package_formats"] = [package_format.name]
    if subject.training is not None:
        content["training"] = subject.training.model_dump(exclude_defaults=True)
    content["configs"] = [_table(config) for config in configs]
    return tomli_w.dumps(content)


def _in_any_folder(spec: str) -> str:
    """Files of networks are named relative to the suite's folder, unless they have a whole path."""
    file, colon, function = spec.rpartition(":")
    return f"{Path(file).resolve()}{colon}{function}" if file.endswith(".py") else spec


def _table(config: PruningConfig) -> dict[str, Any]:
    table = {"algorithm": config.algorithm, **config.model_dump(mode="json", exclude_defaults=True)}
    return table | ({"layers": dict(config.layers)} if config.layers else {})
