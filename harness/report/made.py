"""How a row was made: what makes it again, in a shell, with what is to be known of it as comments."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from coreml_prune_bench.core.escaping import shell_command, shell_comment, shell_option
from coreml_prune_bench.records.accuracy import GIVEN, Record

RowKey = tuple[str, str, str, str, str]
"""A row: suite, data, network, algorithm and config."""


@dataclass(frozen=True)
class Made:
    """Rows that the same commands make."""

    id: str
    lines: tuple[str, ...]
    rows: list[str]
    keys: list[RowKey]


def row_key(record: Record) -> RowKey:
    return record.suite, record.data.spec, record.network.name, record.pruning.algorithm, record.config


def how_made(trials_of: Mapping[RowKey, list[Record]], shipped_suites: Collection[str]) -> list[Made]:
    """One for each set of commands. trials_of: the measured and failed trials of each row."""
    groups: dict[tuple[str, ...], list[RowKey]] = {}
    for key, trials in trials_of.items():
        groups.setdefault(_commands(trials, shipped_suites), []).append(key)
    return [
        Made(
            id=f"made-{number}",
            lines=lines,
            rows=[name_of(trials_of[key][0]) for key in keys],
            keys=keys,
        )
        for number, (lines, keys) in enumerate(groups.items(), start=1)
    ]


def named(title: str) -> str:
    """An algorithm's title as a reader of the page sees it."""
    return "not pruned" if title == "n/a" else title


def name_of(record: Record) -> str:
    """A row in words."""
    return f"{record.network.title}, {named(record.pruning.title)}, {record.pruning.config}"


def _commands(trials: list[Record], shipped_suites: Collection[str]) -> tuple[str, ...]:
    """What makes a row again, in a shell, with what is to be known of it as comments."""
    first = trials[0]
    commit, installed = first.provenance.git_commit, first.provenance.packages.get("coreml-prune-bench")
    program = ["coreml-prune-bench"] if installed and not commit else ["python", "run_bench.py"]
    shipped = first.suite in shipped_suites
    command = [*program, "run", *shell_option("--suite", first.suite if shipped else f"{first.suite}.toml")]
    network = first.network
    command += shell_option("--model", network.spec) if network.spec else shell_option("--models", network.name)
    command += shell_option("--data", first.data.spec)
    if network.weights == GIVEN:
        return (str(first.pruning.settings.get("command", "")),)
    needs_weights = re.fullmatch("[0-9a-f]{64}", network.weights)
    if needs_weights:
        command += ["--weights", "DIR"]
    if first.pruning.algorithm not in ("dense", "published"):
        command += shell_option("--algorithms", first.pruning.algorithm)
    if len(trials) > 1:
        command += ["--trials", str(len(trials))]
    if first.runtime and first.runtime.name == "coreml":
        command += ["--runtime", "coreml", *shell_option("--compute-units", first.runtime.compute_units)]
    if first.data.skipped or first.data.train_skipped:
        command.append("--skip-bad-images")
    lines = []
    if commit and re.fullmatch(r"[0-9a-f]{7,64}\+?", commit):
        changed = f"  {shell_comment('with uncommitted changes')}" if commit.endswith("+") else ""
        lines.append(shell_command(["git", "checkout", commit.removesuffix("+")]) + changed)
    elif commit:
        lines.append(shell_comment(f"at what its record calls the commit {commit}"))
    elif installed:
        lines.append(shell_command(["pip", "install", f"coreml-prune-bench[all]=={installed}"]))
    if network.weights == "as published":
        lines.append(shell_command([*program, "fetch-published"]))
    lines.append(shell_command(command))
    if needs_weights:
        lines.append(shell_comment(f"DIR/{network.name}.pth has the SHA-256 {network.weights}"))
    made_on = first.provenance
    lines.append(shell_comment(f"was run on {made_on.os}, {made_on.cpu_count} processors, Python {made_on.python}"))
    return tuple(lines)
