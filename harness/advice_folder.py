"""What `advise` leaves behind: the package, its config for Core ML Tools, a suite of all that was tried, the advice."""

import os
import shutil
from pathlib import Path
from typing import Any

import tomli_w

from harness.advise import Advice, Attempt
from harness.cells import Subject
from harness.errors import BenchError
from harness.store import write_atomically
from models.config import AnyPruningConfig

ADVICE, SUITE = "advice.json", "advise.toml"


def check_folder(folder: Path) -> None:
    """Raises BenchError where an advice would take the place of something else."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / ADVICE).is_file()):
        raise BenchError(f"{folder} holds something else than an advice: name another folder with --out")


def write_advice(
    folder: Path, advice: Advice, attempts: list[Attempt], subject: Subject, package: Path | None, yaml: dict[str, str]
) -> None:
    """Fill `folder`, in place of an older advice. package, yaml: of what was chosen, if anything was."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        if package is not None:
            shutil.copytree(package, unfinished / package.name)
        for name, text in yaml.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        (unfinished / SUITE).write_text(suite([one.config for one in attempts], subject, advice.data), "utf-8")
        write_atomically(unfinished / ADVICE, advice.model_dump_json(indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def suite(configs: list[AnyPruningConfig], subject: Subject, data: str) -> str:
    """A suite file with these configs: `run` makes the same cells of it."""
    content: dict[str, Any] = {
        "description": f"What was tried to find a package of {subject.network.title}",
        "models": [subject.network.spec],
        "weights": "pretrained" if subject.pretrained else "none",
        "trials": 1,
        "data": {"default": f"{data}#selection"},
    }
    if subject.training is not None:
        content["training"] = subject.training.model_dump(exclude_defaults=True)
    content["configs"] = [_table(config) for config in configs]
    return tomli_w.dumps(content)


def _table(config: AnyPruningConfig) -> dict[str, Any]:
    table = {"algorithm": config.algorithm, **config.model_dump(mode="json", exclude_defaults=True)}
    return table | ({"layers": dict(config.layers)} if config.layers else {})
