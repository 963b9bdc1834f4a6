"""Every schema that was ever written can be read, and means what it meant."""

import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.gating.baseline import read_baseline
from coreml_prune_bench.latency.self_test.run import read_self_test
from coreml_prune_bench.models.preprocessing import USUAL
from coreml_prune_bench.records import schemas
from coreml_prune_bench.records.accuracy import read_record
from coreml_prune_bench.records.hits import read_scored
from coreml_prune_bench.records.latency import read_latency_record

FILES = Path(__file__).parent / "schemas"


class _Toy(BaseModel):
    schema_version: Literal[3]
    measured: str


@pytest.mark.parametrize("version", range(1, schemas.VERSIONS["record"] + 1))
def test_records_of_every_schema_are_read_and_say_the_same(version):
    record = read_record(FILES / f"record-{version}.json")
    assert record.schema_version == schemas.VERSIONS["record"]
    assert record.network.name == "mobilenet_v2"
    assert (record.pruning.algorithm, record.pruning.sparsity) == ("sparse-gpt", 0.5)
    assert record.package.weight_bytes == 5_000_000
    assert record.predictions.top1 == 0.5
    assert bool(record.code) == (version > 1)
    assert record.data.preprocessing == USUAL
    threads = 2 if version > 2 else None
    assert (record.provenance.build_threads, record.provenance.predict_threads) == (threads, threads)
    _, hits = read_scored(FILES / f"record-{version}.json")
    assert hits.tolist() == [True, False]


@pytest.mark.parametrize("version", range(1, schemas.VERSIONS["latency record"] + 1))
def test_latency_records_of_every_schema_are_read_and_say_the_same(version):
    record = read_latency_record(FILES / f"latency-record-{version}.json")
    assert record.schema_version == schemas.VERSIONS["latency record"]
    assert (len(record.rounds), record.rounds[1].call_ns[0]) == (2, 1990021)
    assert record.provenance.predict_threads == (2 if version > 1 else None)


def test_baselines_of_every_schema_are_read():
    assert schemas.VERSIONS["baseline"] == 1, "a file of each version stands here"
    (row,) = read_baseline(FILES / "baseline-1.json").accuracy
    assert row.correct.tolist() == [[True, False]]


def test_a_self_test_of_every_schema_is_read():
    assert schemas.VERSIONS["self-test"] == 1, "a file of each version stands beside the tests of the stand-in"
    found = read_self_test(FILES.parents[1] / "latency" / "self_test_of_the_stand_in.json")
    assert (found.finished, len(found.checks)) == (True, 28)


def test_what_is_written_is_of_the_newest_schema_and_read_back_alike():
    accuracy = FILES / f"record-{schemas.VERSIONS['record']}.json"
    latency = FILES / f"latency-record-{schemas.VERSIONS['latency record']}.json"
    assert read_record(accuracy).to_json() == accuracy.read_text()
    assert read_latency_record(latency).to_json() == latency.read_text()


def test_an_older_record_that_is_damaged_is_named_and_no_other_error(tmp_path):
    for changed in ("[]", '"x"', "null"):
        content = json.loads((FILES / "record-2.json").read_text()) | {"provenance": json.loads(changed)}
        (tmp_path / "r.json").write_text(json.dumps(content))
        with pytest.raises(DamagedFileError, match="is not a record of schema 4: provenance"):
            read_record(tmp_path / "r.json")


def test_a_file_is_migrated_step_by_step(monkeypatch):
    monkeypatch.setitem(schemas.VERSIONS, "toy", 3)
    monkeypatch.setitem(schemas._MIGRATIONS, ("toy", 1), lambda old: {"time": old["when"]})
    monkeypatch.setitem(schemas._MIGRATIONS, ("toy", 2), lambda old: {"measured": old["time"]})
    old = json.dumps({"schema_version": 1, "when": "2026-01-01"})
    assert schemas.read_as(_Toy, "toy", old, "x.json").measured == "2026-01-01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"schema_version": 4}',
            "a toy of schema 4, which this version cannot read: it knows schemas up to 3",
        ),
        ("{}", "it has no schema_version"),
        ('{"schema_version": true}', "it has no schema_version"),
        ("[1]", "it has no schema_version"),
        ('{"schema_ver', "x.json is not a toy: Invalid JSON: EOF while parsing"),
        ('{"schema_version": 3}', "x.json is not a toy of schema 3: measured Field required; make one"),
    ],
)
def test_what_is_none_is_one_line(monkeypatch, text, message):
    monkeypatch.setitem(schemas.VERSIONS, "toy", 3)
    with pytest.raises(BenchError) as raised:
        schemas.read_as(_Toy, "toy", text, "x.json", "; make one")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
