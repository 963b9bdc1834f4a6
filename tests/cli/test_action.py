"""GitHub's action: its steps, as its runner would run them, with bash and this project's command."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def run_steps(folder: Path, inputs: dict[str, str]) -> tuple[int, str, str]:
    """The named steps but for the installation: exit code of the last one that ran, their output, the summary."""
    command = folder / "bin" / "coreml-prune-bench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "run_bench.py"}" "$@"\n')
    command.chmod(0o755)
    values = {name: str(one["default"]) for name, one in ACTION["inputs"].items()} | inputs
    output = ""
    for step in ACTION["runs"]["steps"]:
        if step.get("name") not in ("Measure", "Report", "Gate"):
            continue
        if step.get("if") == "inputs.packages != ''" and not values["packages"]:
            continue
        given = {
            name: values[text.removeprefix("${{ inputs.").removesuffix(" }}")] for name, text in step["env"].items()
        }
        environment = {
            **os.environ, **given, "PATH": f"{command.parent}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }  # fmt: skip
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # as its runner calls it
        done = subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True)
        output += done.stdout + done.stderr
        if done.returncode:
            break
    summary = folder / "summary.md"
    return done.returncode, output, summary.read_text() if summary.exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "code"), [("top1 >= 90\npackage_mb <= 4", 1), ("package_mb <= 4", 0)])
def test_packages_are_measured_and_gated(rule: str, code: int, package: Path, images: Path, tmp_path: Path) -> None:
    inputs = {
        "packages": f"{package}\n", "names": "net, as it is\n", "data": f"imagefolder:{images}",
        "options": "--limit\n9\n", "results": "kept results", "require": rule,
    }  # fmt: skip
    (tmp_path / "job").mkdir()
    found, output, summary = run_steps(tmp_path / "job", inputs)
    assert found == code, output
    assert ("::error title=worse%3A net%2C given%2C as it is::top1 >= 90 missed" in output) == bool(code)
    assert summary.startswith("## Gate\n\n" + ("net, given, as it is: top1 >= 90 is missed" if code else "nothing is"))
    assert (tmp_path / "job" / "kept results" / "report.html").is_file()


def test_every_input_is_used_and_every_step_can_be_run() -> None:
    text, page = ((ROOT / name).read_text() for name in ("action.yml", "docs/ci.md"))
    for name in ACTION["inputs"]:
        assert f"inputs.{name}" in text
        assert f"`{name}`" in page or f"          {name}:" in page
    for step in ACTION["runs"]["steps"]:
        assert "uses" in step or step["shell"] == "bash"
        # What comes from outside reaches a shell through its environment alone.
        assert "${{" not in step.get("run", "")
        if "run" in step:
            subprocess.run(["bash", "-n", "-c", step["run"]], check=True)


def test_records_that_are_there_are_gated_without_measuring(run_bench: Any, tmp_path: Path) -> None:
    """What the gate's step calls, in this process."""
    from tests.factories import accuracy_record, write_records

    write_records(tmp_path, accuracy_record([True] * 90 + [False] * 10))
    code, output, _ = run_bench("gate", "--results", tmp_path, "--format", "github", "--require", "top1 >= 95")
    assert code == 1
    assert "::error title=worse%3A resnet50" in output
