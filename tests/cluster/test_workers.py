"""Who is asked whether it fits, and how often."""

from types import SimpleNamespace

import pytest

from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.cluster.workers import Admission
from coreml_prune_bench.cluster.workplace import NAME
from coreml_prune_bench.core.progress import Reporter

ADDRESS = "tls://mac:9001"


class Scheduler:
    """With one worker, at one address, whose process may be another one. answers: to each question, in turn."""

    def __init__(self, *answers):
        self.process, self.asked, self._answers = "first", [], list(answers)

    def scheduler_info(self, n_workers):
        told = {"machine": "mac", "kind": "cpu", "versions": versions(), "doing": "", "cores": 1, "sent_bytes": 0}
        worker = {"metrics": {NAME: {**told, "process": self.process}}, "resources": {"CPU": 1.0}}
        return {"workers": {ADDRESS: worker} if self.process else {}}

    def submit(self, function, *arguments, key, **how):
        self.asked.append(key)
        return Answer(self._answers.pop(0))


class Answer:
    """To a question: None, a reason, `TimeoutError`, or "nothing" as yet."""

    status = "finished"

    def __init__(self, said):
        self._said = said

    def done(self):
        return self._said != "nothing"

    def result(self, timeout):
        if self._said is TimeoutError:
            raise TimeoutError
        return self._said


@pytest.fixture
def admission():
    def make(scheduler):
        return Admission(scheduler, SimpleNamespace(versions=versions(), tag="fits"), "topic", Reporter())

    return make


def test_a_worker_is_asked_once_and_again_when_it_was_started_anew_at_its_address(admission):
    scheduler = Scheduler(None, None)
    seen = admission(scheduler)
    for _ in range(3):
        seen.look()
    assert ([one.address for one in seen.fit], len(scheduler.asked)) == ([ADDRESS], 1)
    scheduler.process = "second"  # without a look in which it was away
    seen.look()
    assert [one.process for one in seen.fit] == ["second"]
    assert len(set(scheduler.asked)) == 2


def test_one_that_dies_with_its_answer_is_asked_again(admission):
    scheduler = Scheduler(TimeoutError, None)
    seen = admission(scheduler)
    seen.look()
    assert seen.fit == []
    seen.look()
    assert len(seen.fit) == 1


def test_one_that_is_gone_owes_no_answer_and_one_that_was_mended_fits(admission):
    scheduler = Scheduler("nothing", "no data", None)
    seen = admission(scheduler)
    seen.look()
    assert seen.is_asking
    scheduler.process = ""
    seen.look()
    assert not seen.is_asking
    scheduler.process = "second"
    seen.look()
    assert seen.refused == {ADDRESS: "mac is left out: no data"}
    scheduler.process = "third"
    seen.look()
    assert (seen.refused, len(seen.fit)) == ({}, 1)
