"""A clock that tests turn."""

import pytest

import coreml_prune_bench.advice.budget


@pytest.fixture
def clock(monkeypatch):
    """The time, which passes only where a test says so."""
    now = [100.0]
    monkeypatch.setattr(coreml_prune_bench.advice.budget.time, "monotonic", lambda: now[0])
    return now
