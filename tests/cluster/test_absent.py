"""What is said, and when, while no worker can go on."""

import re

import pytest

from coreml_prune_bench.cluster import absent
from coreml_prune_bench.cluster.absent import GRACE_SECONDS, Absence, wait_for_one
from coreml_prune_bench.cluster.workers import Seen
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter

ADDRESS = "tls://192.168.1.10:8786"
BOX = Seen("tls://a", "box", "cpu", {}, {"CPU": 1, "machine box": 1}, "", 4, 0)
BIG = Seen("tls://b", "big", "gpu", {}, {"CPU": 1, "GPU": 1}, "", 4, 0)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def reporter(lines):
    class Kept(Reporter):
        def say(self, line):
            lines.append(line)

        def warn(self, line):
            lines.append(f"warning: {line}")

    return Kept()


@pytest.fixture
def clock(monkeypatch):
    """A clock of this test: `clock[0]` are the seconds."""
    now = [100.0]
    monkeypatch.setattr(absent, "monotonic", lambda: now[0])
    return now


def test_it_is_said_once_what_is_missing_who_is_there_and_how_one_joins(reporter, lines, clock):
    absence = Absence(ADDRESS, None, reporter)
    for _ in range(3 * int(GRACE_SECONDS)):
        absence.look(["CPU", "GPU"], [BOX], [BOX], at_work=True)
        clock[0] += 1
    assert lines == [
        "warning: no worker with GPU fits; there are: box (CPU); one joins by `coreml-prune-bench cluster join "
        f"{ADDRESS} --as gpu`; waiting for one"
    ]
    absence.look(["CPU", "GPU"], [BOX, BIG], [BOX, BIG], at_work=True)
    assert lines[1:] == ["goes on: big has GPU"]
    for _ in range(3 * int(GRACE_SECONDS)):  # and again when that is gone
        absence.look(["GPU"], [BOX], [BOX], at_work=False)
        clock[0] += 1
    assert len(lines) == 3


def test_a_worker_that_is_back_soon_is_nothing_to_tell_of(reporter, lines, clock):
    absence = Absence(ADDRESS, None, reporter)
    absence.look(["CPU"], [], [], at_work=False)
    clock[0] += GRACE_SECONDS / 2
    absence.look(["CPU"], [BOX], [BOX], at_work=False)
    clock[0] += GRACE_SECONDS
    absence.look(["CPU"], [], [], at_work=False)
    assert lines == []


def test_nobody_joins_the_processes_of_one_run(reporter, lines, clock):
    absence = Absence(None, None, reporter)
    absence.look(["CPU"], [], [], at_work=False)
    clock[0] += GRACE_SECONDS
    absence.look(["CPU"], [], [], at_work=False)
    assert lines == ["warning: no worker with CPU fits; there are: none at all; waiting for one"]


def test_the_run_ends_after_the_limit_but_not_while_something_runs(reporter, clock):
    absence = Absence(ADDRESS, 60, reporter)
    absence.look(["GPU"], [BOX], [BOX], at_work=True)
    clock[0] += 100
    absence.look(["GPU"], [BOX], [BOX], at_work=True)
    with pytest.raises(BenchError, match=r"no worker with GPU fits; .* none within 60 s \(--wait-limit\); what was"):
        absence.look(["GPU"], [BOX], [BOX], at_work=False)


class Answers:
    """Workers that have been asked, and what each look hears: (fit, refused, whether one has not answered yet)."""

    def __init__(self, *looks):
        self._looks = list(looks)
        self.fit, self.refused, self.is_asking, self.there = [], {}, True, [BOX, BIG]

    def look(self):
        fit, refused, self.is_asking = self._looks.pop(0)
        self.fit, self.refused = list(fit), {one.address: f"{one.machine} is left out: why" for one in refused}


@pytest.mark.parametrize(
    "looks",
    [
        [([BIG], [BOX], False)],  # both in one look
        [([], [BOX], True), ([BIG], [BOX], False)],
        [([], [], False), ([], [], True), ([BIG], [], False)],
    ],
)
def test_one_that_fits_is_enough_whoever_is_refused_meanwhile(reporter, looks):
    answers = Answers(*looks)
    with reporter.steps("workers", 1) as steps:
        wait_for_one(answers, Absence(ADDRESS, None, reporter), "CPU", steps)
    assert answers.fit == [BIG]


def test_where_all_are_refused_the_run_ends_with_their_reasons(reporter):
    answers = Answers(([], [BOX], True), ([], [BOX, BIG], False))
    line = "no worker fits: box is left out: why | big is left out: why"
    with reporter.steps("workers", 1) as steps, pytest.raises(BenchError, match=re.escape(line)):
        wait_for_one(answers, Absence(ADDRESS, None, reporter), "CPU", steps)
