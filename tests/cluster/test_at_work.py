"""A task at work: what its client hears, and whose trouble ends the worker."""

import errno
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from coreml_prune_bench.cluster import at_work as module
from coreml_prune_bench.cluster.at_work import at_work
from coreml_prune_bench.cluster.tasks import lacks_room
from coreml_prune_bench.cluster.workplace import NAME, Workplace
from coreml_prune_bench.core.errors import DataError


class EndedError(BaseException):
    pass


@pytest.fixture
def heard(monkeypatch):
    """The events of a worker, and one for the end of its process."""
    events: list[dict] = []
    place = Workplace("desk", "cpu", {})
    worker = SimpleNamespace(
        log_event=lambda topic, told: events.append({"topic": topic, **told}), plugins={NAME: place}
    )

    def ended(code):
        events.append({"kind": "exit", "code": code})
        if threading.current_thread() is threading.main_thread():
            raise EndedError

    monkeypatch.setattr(module, "get_worker", lambda: worker)
    monkeypatch.setattr(module, "_LAST_WORDS_SECONDS", 0)
    monkeypatch.setattr(module.os, "_exit", ended)
    return events


def test_it_tells_what_it_does(heard):
    with at_work("topic", "key", "tiny, dense", None) as (place, teller):
        assert place.doing == "tiny, dense"
        with teller.steps("cells", 1) as steps:
            steps.update("training", 1, 21)
            steps.update("training", 2, 21)  # within the same second
        assert place.doing == "training 2/21"
        teller.warn("look")
    assert place.doing == ""
    about = {"topic": "topic", "task": "key", "name": "tiny, dense", "machine": "desk"}
    assert heard == [
        {**about, "kind": "start"},
        {**about, "kind": "step", "description": "training", "done": 1, "total": 21},
        {**about, "kind": "line", "line": "warning: look"},
        {**about, "kind": "done"},
    ]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/scratch/x"), "No space left on device: /scratch/x"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_the_machine_s_trouble_ends_the_worker_and_says_why(heard, error, why):
    with pytest.raises(EndedError), at_work("topic", "key", "cell", None):
        raise error
    assert [one["kind"] for one in heard] == ["start", "end", "exit", "done"]
    assert heard[1]["why"] == why
    assert heard[2]["code"] == 1


def test_what_the_user_can_mend_names_the_machine(heard):
    with pytest.raises(DataError, match=r"^desk: no image at x$"), at_work("topic", "key", "cell", None):
        raise DataError("no image at x")
    assert [one["kind"] for one in heard] == ["start", "done"]


def test_what_takes_too_long_ends_the_worker(heard):
    with at_work("topic", "key", "cell", 0.05):
        time.sleep(0.3)
    assert [one["kind"] for one in heard] == ["start", "end", "exit", "done"]
    assert heard[1]["why"] == "not done after 0.05 s (--task-time-limit)"


def test_what_ends_in_time_does_not(heard):
    with at_work("topic", "key", "cell", 0.2):
        pass
    time.sleep(0.3)
    assert [one["kind"] for one in heard] == ["start", "done"]


def test_a_full_disk(tmp_path, monkeypatch):
    assert lacks_room(tmp_path) is None or shutil.disk_usage(tmp_path).free < 1 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=12_000_000))
    assert lacks_room(tmp_path) == f"{tmp_path} has 12 MB free, expected 1,074 or more"
