"""Which workers fit a suite: what has to be the same there, and the line that names both sides."""

from dataclasses import replace

import pytest

from coreml_prune_bench.accuracy.runtime import PORTABLE
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster import versions as of_versions
from coreml_prune_bench.cluster.asked import Asked, facts_of
from coreml_prune_bench.cluster.connect import Where
from coreml_prune_bench.cluster.versions import differences, versions
from coreml_prune_bench.cluster.worker_process import parts_of_processors
from coreml_prune_bench.cluster.workplace import Workplace
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter


@pytest.fixture(scope="module")
def suite(tiny_suite):
    return load_suite(str(tiny_suite))


@pytest.fixture(scope="module")
def asked(suite):
    cells = lay_out(suite, None)
    return Asked(SuiteChoice(suite), PORTABLE, versions(), facts_of(cells), len(cells))


def test_a_worker_lays_out_the_same_cells(asked, suite):
    there = asked.cells_at(Workplace("m", "cpu", versions()), Reporter())
    assert [cell.key for cell in there] == [cell.key for cell in lay_out(suite, None)]
    assert asked.differences(there) == []


def test_other_images_are_named_on_both_sides(asked, images):
    spec = f"imagefolder:{images}"
    there = asked.cells_at(Workplace("m", "cpu", versions(), data=(spec,)), Reporter())
    lines = asked.differences(there)
    (ours,), (theirs,) = asked.facts, facts_of(there)
    assert lines == [
        f"val of {spec} has the fingerprint {theirs.val[:12]} there, and of digits {ours.val[:12]} here",
        f"train of {spec} has the fingerprint {theirs.train[:12]} there, and of digits {ours.train[:12]} here",
    ]


def test_other_weights_are_named(asked):
    (ours,) = asked.facts
    other = replace(ours, weights="f" * 64)
    assert list(other.differences(ours)) == ["weights of tiny are ffffffffffff there and none here"]


def test_a_limit_holds_for_a_worker_s_own_data(asked, suite):
    limited = replace(asked, choice=SuiteChoice(suite, limit=20))
    cells = limited.cells_at(Workplace("m", "cpu", versions(), data=("digits",)), Reporter())
    assert len(cells[0].subject.data.val) == 20


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("Python", "3.9", "Python is 3.9 there and {Python} here"),
        ("coremltools", "8.0", "coremltools is 8.0 there and {coremltools} here"),
        ("torch", "2.7.0", "torch is 2.7.0 there and {torch} here"),
        ("code", "0" * 12, "code is 000000000000 there and {code} here"),
    ],
)
def test_what_has_to_be_the_same(name, value, line):
    ours = versions()
    assert differences(ours, ours) == ""
    assert differences({**ours, name: value}, ours) == line.format(**ours)


def test_torch_counts_without_its_local_suffix(monkeypatch):
    monkeypatch.setattr(of_versions, "version", lambda name: "2.8.0+cu128")
    assert versions()["torch"] == "2.8.0"


@pytest.mark.parametrize("address", ["tcp://host:8786", "host:8786", "local:0", "local:", "local:two"])
def test_an_address_that_is_none(address, tmp_path):
    with pytest.raises(BenchError, match=f"--cluster {address}: expected local:N or tls://HOST:PORT"):
        _ = Where(address, tmp_path).count


def test_processors_are_divided_and_shared_where_there_are_too_few(monkeypatch):
    from coreml_prune_bench.cluster import worker_process

    monkeypatch.setattr(worker_process, "processors", lambda: frozenset(range(5)))
    assert parts_of_processors(2) == [(0, 2, 4), (1, 3)]
    monkeypatch.setattr(worker_process, "processors", lambda: frozenset([7]))
    assert parts_of_processors(3) == [(7,), (7,), (7,)]


def test_a_worker_s_own_data_is_cut_to_the_part_that_the_suite_names(asked, suite):
    part = suite.model_copy(update={"data": {"default": "digits#selection"}})
    there = replace(asked, choice=SuiteChoice(part)).cells_at(
        Workplace("m", "cpu", versions(), data=("digits",)), Reporter()
    )
    assert there[0].subject.data.spec == "digits#selection"
