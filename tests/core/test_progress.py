"""What is told on standard error is text, whatever is in it."""

import pytest

from coreml_prune_bench.core.progress import Reporter, warn


def test_a_label_in_brackets_is_a_label(monkeypatch: pytest.MonkeyPatch, capsys):
    """On a terminal, where bars are shown: rich takes brackets for styles, and fails at one that ends none."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    reporter = Reporter()
    with reporter.steps("net [/dense]", 2) as steps:
        steps.update("[red]50% [/x]: training\x1b[2J", 1, 2)
        reporter.say("[/said]\nand \x1b[2J")
        warn("[/warned]")
    _, errors = capsys.readouterr()
    for text in ("net [/dense]", r"[red]50% [/x]: training\x1b[2J", r"[/said]\nand \x1b[2J", "warning: [/warned]"):
        assert text in errors
    assert "\x1b[2J" not in errors
