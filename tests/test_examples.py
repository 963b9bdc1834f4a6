"""The example project and the Dockerfile: what their texts say is done, as they say it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from coreml_prune_bench.bench.suite import load_suite
from tests.cli.test_action import ACTION, run_steps
from tests.cli.test_docs import fenced

ROOT = Path(__file__).parents[1]
SHAPES = ROOT / "examples" / "shapes"
WORKFLOW = yaml.safe_load((SHAPES / "gate.yml").read_text())
(GATE,) = (step["with"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "coreml-prune-bench" in step["uses"])


def test_the_suite_and_the_workflow_are_understood() -> None:
    suite = load_suite(str(SHAPES / "shapes.toml"))
    assert suite.app is not None
    assert suite.app.labels is True
    assert set(GATE) <= set(ACTION["inputs"])
    for call in fenced(SHAPES / "README.md"):
        if call.startswith("gate "):
            rules = [word for word in shlex.split(call) if re.search("[<>]=", word)]
            assert rules == GATE["require"].splitlines()


def test_the_notebook_is_one() -> None:
    notebook = json.loads((SHAPES / "shapes.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), cell["id"], "exec")
            assert cell["outputs"] == []


@pytest.mark.slow
def test_from_images_to_a_gate(tmp_path: Path) -> None:
    """Every command of the page, the workflow's action on what they made, and the notebook's cells."""
    folder = Path(shutil.copytree(SHAPES, tmp_path / "shapes"))

    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    call(sys.executable, "make_images.py")
    told = [call(sys.executable, str(ROOT / "run_bench.py"), *shlex.split(one)) for one in fenced(folder / "README.md")]
    assert "packages in results/local/artifacts" in told[0]
    assert any("classLabel: circle" in text for text in told), told
    assert "top1 >= 75" in told[-1]
    assert (folder / "report.html").is_file()
    code, output, summary = run_steps(folder, {**GATE, "results": "on-a-runner"})
    assert code == 0, output
    assert "nothing is worse in 2 rows" in summary
    shutil.rmtree(folder / "bin")
    code, output, _ = run_steps(folder, {**GATE, "results": "another", "require": "top1 >= 99.9"})
    assert code == 1, output

    notebook = json.loads((folder / "shapes.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    program = "\n".join([*cells, "print(len(rows), sorted(by_class.columns), type(results.plot()).__name__)"])
    (folder / "cells.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "5 [0, 1, 2, 3] ConcatChart"


# --- the container


def instructions(stage: str) -> list[tuple[str, str]]:
    """Of a stage of the Dockerfile, in order."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, rest in lines:
        if word == "FROM":
            name = rest.split(" AS ")[1]
        stages.setdefault(name, []).append((word, rest))
    return stages[stage]


def test_the_light_container_is_the_base_and_the_full_one_the_readmes_two_commands() -> None:
    light, full = instructions("light"), instructions("full")
    assert ("RUN", "pip install --no-cache-dir '/opt/coreml-prune-bench[charts]'") in light
    assert ("ENTRYPOINT", '["coreml-prune-bench"]') in light
    readme = (ROOT / "README.md").read_text()
    assert "make bench " in readme
    assert "make test " in readme
    assert full[-2:] == [("RUN", "make setup"), ("CMD", '["make", "bench"]')]
    assert ("WORKDIR", "/opt/coreml-prune-bench") in full
    for stage in (light, full):
        version = re.fullmatch(r"python:3\.(\d+)-slim AS \w+", stage[0][1])
        assert version is not None
        assert 11 <= int(version[1]) <= 13
        for word, rest in stage:
            if word == "RUN":
                subprocess.run(["sh", "-n", "-c", rest], check=True)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv"} <= set(ignored)
    assert not any((ROOT / name).exists() for name in ("pyproject.toml", "constraints.txt") if name in ignored)


def test_what_the_examples_write_is_not_kept() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"/examples/*/images/", "/examples/*/results/", "/examples/*/*.mlpackage/"} <= set(ignored)
