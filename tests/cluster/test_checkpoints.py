"""A training goes on where another worker's checkpoint is, if both have one folder."""

from contextlib import suppress
from types import SimpleNamespace

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.cluster import at_work
from coreml_prune_bench.cluster.connect import _shared
from coreml_prune_bench.cluster.tasks import Order, make
from coreml_prune_bench.cluster.workplace import NAME, Workplace

OFTEN = 1e-6
"""Minutes between checkpoints: at every step."""


class DiedError(BaseException):
    """In place of the end of a worker's process."""


@pytest.fixture
def train_on(tmp_path, monkeypatch, tiny_suite):
    """Have a new worker train the tiny network; the steps that it made. dies_at: in the middle."""
    cells = lay_out(load_suite(str(tiny_suite)), None)
    monkeypatch.setattr(at_work, "_EVENT_SECONDS", 0)

    def train(name: str, shared, dies_at: int | None = None) -> list[int]:
        steps: list[int] = []

        def hear(topic, told):
            if told["kind"] == "step" and "training" in told["description"]:
                steps.append(told["done"])
                if told["done"] == dies_at:
                    raise DiedError

        place = Workplace(name, "cpu", {}, shared=shared, scratch=tmp_path / name)
        place.remember("tag", cells)
        worker = SimpleNamespace(log_event=hear, plugins={NAME: place})
        monkeypatch.setattr(at_work, "get_worker", lambda: worker)
        monkeypatch.setattr(place, "compute_on", lambda threads: 1)
        minutes = OFTEN if dies_at else 10
        parcel = make(Order("tag", "topic", "task", 0, "tiny", checkpoint_minutes=minutes), "network", {})
        assert parcel is not None
        return steps

    return train


def test_another_worker_goes_on_from_the_checkpoint(train_on, threads, tmp_path):
    threads(1)
    shared = tmp_path / "shared"
    with pytest.raises(DiedError):
        train_on("one", shared, dies_at=20)
    assert list(shared.glob("artifacts/.*.checkpoint"))
    steps = train_on("two", shared)
    assert steps[0] == 20  # whose state was not saved yet
    assert len(steps) == steps[-1] - 19
    assert list(shared.glob("artifacts/.*.checkpoint")) == []


def test_what_workers_here_share_stays_where_a_run_is_ended_and_goes_where_it_is_through(tmp_path):
    kept, temporary = tmp_path / "results" / "artifacts" / ".cluster", tmp_path / "temporary"
    with suppress(DiedError), _shared(kept, temporary) as shared:
        shared.mkdir()
        (shared / "checkpoint").touch()
        with _shared(kept, temporary) as another_runs:
            assert another_runs == temporary
        raise DiedError
    assert kept.exists()
    with _shared(kept, temporary) as shared:
        assert shared == kept.resolve()
        assert (shared / "checkpoint").exists()
    assert not kept.exists()
    with _shared(None, temporary) as shared:
        assert shared == temporary


def test_without_a_shared_folder_it_starts_again(train_on, threads):
    threads(1)
    with pytest.raises(DiedError):
        train_on("one", None, dies_at=20)
    assert train_on("two", None)[0] == 1
