"""Rows over commits: from a results folder, from git's log of a baseline file and of a folder of records."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.gating.baseline import from_records, write_baseline
from coreml_prune_bench.gating.history import State, page, read_states, series_of
from coreml_prune_bench.records.accuracy import Record
from tests.factories import accuracy_record, failed_record, latency_record, write_records
from tests.report.samples import Page

COMMITS = 100
IMAGES = 1000
LOST_AT, GAINED_AT, GONE_AT = 40, 70, 90


def name_of(commit: int) -> str:
    return f"{commit:04x}" * 10


def record_at(commit: int, right: int, *, model: str = "resnet50", spec: str = "imagefolder:x") -> Record:
    """Of 1,000 images, the first `right` are; a commit an hour."""
    created = f"2026-01-{1 + commit // 24:02d}T{commit % 24:02d}:00:00+00:00"
    record = accuracy_record(np.arange(IMAGES) < right, model=model, created=created, data={"spec": spec})
    made = record.provenance.model_copy(update={"git_commit": name_of(commit)})
    return record.model_copy(update={"provenance": made, "key": f"{model}-{commit}"})


def right_at(commit: int) -> int:
    """800 of 1,000, between two commits 750."""
    return 750 if LOST_AT <= commit < GAINED_AT else 800


@pytest.fixture(scope="module")
def states() -> list[State]:
    """A row that loses and gains, one that goes, and latencies, over a hundred commits."""
    found = []
    for commit in range(COMMITS):
        rows = [record_at(commit, right_at(commit))]
        if commit < GONE_AT:
            rows.append(record_at(commit, 700, model="small"))
        slow = 2 if commit >= LOST_AT else 1
        timed = latency_record([[slow * (1_000_000 + n) for n in range(3)] for _ in range(12)])
        found.append(State(name_of(commit), "2026-01-01", f"Commit {commit}", from_records(rows, [timed])))
    return found


def test_each_commit_is_held_against_the_one_before(states):
    by_name = {(one.kind, one.key.model): one for one in series_of(states)}
    main = by_name["accuracy", "resnet50"]
    assert [value for _, value in main.measured] == [right_at(commit) / 10 for commit in range(COMMITS)]
    assert [(p.place, p.verdict) for p in main.marked] == [(0, "new"), (LOST_AT, "worse"), (GAINED_AT, "better")]
    assert main.marked[1].told.startswith("80.00 -> 75.00 %, lost 5.00 points")
    assert main.since.verdict == "same"
    small = by_name["accuracy", "small"]
    assert [(p.place, p.verdict) for p in small.marked] == [(0, "new"), (GONE_AT, "missing")]
    assert small.since.verdict == "missing"
    (latency,) = [one for one in by_name.values() if one.kind == "latency"]
    assert [(p.place, p.verdict) for p in latency.marked] == [(0, "new"), (LOST_AT, "worse")]
    assert latency.since.verdict == "worse"


def test_a_cell_that_only_ever_failed_draws_no_line():
    rows = from_records([record_at(0, 800), failed_record(model="broken")])
    states = [State(name_of(commit), "2026-01-01", "a commit", rows) for commit in range(2)]
    assert [one.key.model for one in series_of(states)] == ["resnet50"]


def test_the_page_says_what_happened_the_newest_first_and_draws_a_line_a_row(states):
    text = page(states, "main")
    parsed = Page(text)
    events = parsed.tables[0]
    told = [(row[0], row[3].strip()) for row in events[1:]]
    expected = [(GONE_AT, "missing"), (GAINED_AT, "better"), (LOST_AT, "worse"), (LOST_AT, "worse")]
    assert told == [(name_of(commit)[:10], verdict) for commit, verdict in expected]
    assert "Commit 40" in events[-1]
    lines = re.findall(r'<polyline points="([^"]*)"', text)
    assert [len(line.split()) for line in lines] == [COMMITS, GONE_AT, COMMITS]
    accuracy = next(table for table in parsed.tables if table[0][0] == "Row")
    row = next(row for row in accuracy if row[0].startswith("resnet50"))
    assert row[2:6] == ["80.00", "80.00", "75.00", "80.00"]
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img"}


def test_names_that_look_like_markup_stay_text(states):
    evil = "<script>alert(1)</script>\x1b"
    rows = from_records([record_at(0, 800, model=evil)])
    text = page([State("a" * 40, "2026-01-01", evil, rows)], evil)
    assert "<script" not in text
    assert "\x1b" not in text


def test_a_results_folder_of_several_commits(tmp_path, run_bench):
    """The state at each commit: what it measured, and before it the newest of what was."""
    write_records(tmp_path / "r", *(record_at(commit, right_at(commit)) for commit in (39, 40, 41, 70)))
    write_records(tmp_path / "r", record_at(39, 700, model="small"))
    states = read_states(str(tmp_path / "r"))
    assert [state.commit for state in states] == [name_of(commit) for commit in (39, 40, 41, 70)]
    assert [len(state.rows.accuracy) for state in states] == [2, 2, 2, 2]
    series = {one.key.model: one for one in series_of(states)}
    assert [point.verdict for point in series["resnet50"].points] == ["new", "worse", "same", "better"]
    assert [point.verdict for point in series["small"].points] == ["new", "same", "same", "same"]
    code, output, errors = run_bench("report", tmp_path / "h.html", "--history", tmp_path / "r")
    assert (code, output.strip()) == (0, str(tmp_path / "h.html")), errors
    assert "4 commits of" in (tmp_path / "h.html").read_text()


def commit_all(folder: Path, message: str) -> None:
    user = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", *user, "commit", "-q", "-m", message], cwd=folder, check=True)


def test_what_git_has_of_a_baseline_file_and_of_a_folder_of_records(tmp_path, monkeypatch, run_bench, refused):
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    for commit in (39, 40, 41):
        record = record_at(commit, right_at(commit)).model_copy(update={"key": "one"})
        write_records(tmp_path / "kept", record)
        write_baseline(tmp_path / "results" / "baseline.json", from_records([record]))
        commit_all(tmp_path, f"Number {commit}")
    (tmp_path / "other").write_text("no records")
    commit_all(tmp_path, "Nothing of them")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for source in ("main", "main:results/baseline.json", "main:kept"):
        states = read_states(source)
        assert [state.subject for state in states] == ["Number 39", "Number 40", "Number 41"]
        (series,) = series_of(states)
        assert [point.verdict for point in series.points] == ["new", "worse", "same"]
    assert [state.subject for state in read_states("main~2..main:kept")] == ["Number 41"]
    assert run_bench("report", "h.html", "--history", "main")[0] == 0
    assert "no commit of it" in refused("report", "i.html", "--history", "main:nothing.json")
    assert "git says: " in refused("report", "i.html", "--history", "nowhere")
    assert "a name such as history.html" in refused("report", "i.svg", "--history", "main")
    assert not Path("i.html").exists()
