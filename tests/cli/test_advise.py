"""`advise` from the command line: one real walk, and what is asked for wrongly."""

import json
import tomllib

import pytest
import torch
import yaml

from coreml_prune_bench.advice.advise import latencies
from coreml_prune_bench.advice.output import _suite, check_folder
from coreml_prune_bench.bench.cells import Subject
from coreml_prune_bench.bench.formats.protocol import get_format
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.data import open_data
from coreml_prune_bench.data.halves import open_data_or_part, part_of
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.latency import write_latency_record
from tests.factories import latency_record
from tests.tiny_network import TINY


@pytest.fixture
def own_suite(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\n[training]\nepochs = 3\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    return path


@pytest.mark.slow
def test_a_walk_from_the_command_line(run_bench, own_suite, tmp_path):
    results = tmp_path / "results"
    command = ("advise", "tiny", "--data", "digits", "--suite", own_suite, "--max-drop", 5, "--results", results)
    code, output, errors = run_bench(*command, "--min-ratio", 2.2, "--budget", "1h", "--json")
    assert code == 0, errors
    advice = json.loads(output)
    assert advice["tried"][advice["chosen"]]["ratio"] >= 2.2
    folder = results / "advice" / "tiny"
    assert json.loads((folder / "advice.json").read_text()) == advice
    assert (folder / "tiny.mlpackage").is_dir()
    (folder / "notes.txt").write_text("mine")

    # A second walk measures nothing, and prints the same.
    records = {path.name: path.stat().st_mtime_ns for path in (results / "records").iterdir()}
    again = run_bench(*command, "--min-ratio", 2.2, "--json")
    assert again[1] == output
    assert {path.name: path.stat().st_mtime_ns for path in (results / "records").iterdir()} == records

    # Images to choose by and to judge are other ones, and everything is an ordinary record.
    data = {record.data.spec: record.data for record in read_records(results)}
    assert set(data) == {"digits#selection", "digits#final"}
    assert len({one.fingerprint for one in data.values()}) == 2

    # The suite that was written makes the same cells.
    written = tomllib.loads((folder / "advise.toml").read_text())
    assert (len(written["configs"]), written["image_size"]) == (len(advice["tried"]), 32)
    code, _, errors = run_bench("run", "--suite", folder / "advise.toml", "--results", results)
    assert (code, f"0 of {len(advice['tried']) + 1} cells measured now" in errors) == (0, True)

    # The config as Core ML Tools' YAML, in a suite, prunes the same layers as much.
    yaml_file = folder / "pruning.yaml"
    sparsities = {layer["name"]: layer["sparsity"] for layer in _layers(results, advice)}
    wanted = yaml.safe_load(yaml_file.read_text())
    assert len(wanted.get("module_name_configs") or wanted["op_name_configs"]) == len(sparsities)

    code, output, errors = run_bench(*command, "--min-ratio", 50)
    assert code == 1, errors
    assert "No package is 50 times smaller" in output
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["advice.json", "advise.toml", "notes.txt"]


@pytest.mark.slow
def test_a_walk_to_a_package_for_core_ai(run_bench, own_suite, tmp_path):
    pytest.importorskip("coreai_torch", reason="without the extra coreai")
    results = tmp_path / "results"
    command = ("advise", "tiny", "--data", "digits", "--suite", own_suite, "--max-drop", 50, "--results", results)
    code, output, errors = run_bench(*command, "--min-ratio", 1.2, "--package-format", "aimodel", "--json")
    assert code == 0, errors
    advice = json.loads(output)
    assert {record.package_format for record in read_records(results)} == {"aimodel"}
    chosen = advice["tried"][advice["chosen"]]
    assert not any(tried["settings"].get("quantize_bits") for tried in advice["tried"])
    folder = results / "advice" / "tiny"
    assert (folder / "tiny.aimodel" / "main.mlirb").stat().st_size == chosen["weight_bytes"]
    assert tomllib.loads((folder / "advise.toml").read_text())["package_formats"] == ["aimodel"]


def test_the_suite_that_is_written_finds_its_images_from_any_folder(images, tmp_path, monkeypatch):
    monkeypatch.chdir(images.parent)
    spec = f"imagefolder:{images.name}/"
    subject = Subject("advise", TINY, open_data(spec), False, False, None, None)
    fingerprint = part_of(subject.data, "selection").val.fingerprint
    (tmp_path / "away").mkdir()
    text = _suite([PostTrainingConfig(sparsity=0.5)], subject, get_format("aimodel"), spec)
    (tmp_path / "away" / "advise.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "away")
    suite = load_suite("advise.toml")
    assert suite.package_formats == ("aimodel",)
    assert suite.data == {"default": f"imagefolder:{images.resolve()}#selection"}
    assert open_data_or_part(suite.data_for("tiny")).val.fingerprint == fingerprint


def _layers(results, advice):
    chosen = advice["tried"][advice["chosen"]]
    (record,) = [one for one in read_records(results) if one.key == chosen["record"]]
    return [layer.model_dump() for layer in record.package.layers]


def test_latencies_are_a_macs_and_of_one_device(tmp_path):
    for number, (name, device) in enumerate((("coreml", "old"), ("coreml", "new"), ("portable", "new"))):
        record = latency_record(
            [[2_000_000] * 30] * 3,
            created=f"2026-01-0{number + 1}",
            device={"name": device},
            runtime={"name": name},
        )
        package = record.package.model_copy(update={"sha256": f"{name} {device}"})
        write_latency_record(tmp_path, record.model_copy(update={"package": package, "key": f"{number}" * 16}))
    assert latencies(tmp_path) == {"coreml new": 2.0}
    assert latencies(tmp_path / "none") == {}


def test_what_is_asked_for_wrongly_is_told_in_one_line(refused, own_suite, tmp_path):
    command = ("advise", "tiny", "--suite", own_suite, "--results", tmp_path / "results")
    assert "is no time" in refused(*command, "--data", "digits", "--budget", "soon")
    assert "the budget is too small" in refused(*command, "--data", "digits", "--budget", "0.1s")
    assert "--suite published measures packages" in refused(
        "advise", "tiny", "--suite", "published", "--data", "digits"
    )
    weights = tmp_path / "weights"
    weights.mkdir()
    torch.save(untrained_model(TINY, 3).state_dict(), weights / "tiny.pth")
    pretrained = ("advise", "tiny", "--data", "digits", "--weights", weights)
    assert "digits has 10 classes, the weights of tiny 3; name a suite with a [training] table" in refused(*pretrained)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    assert "holds something else" in refused(*command, "--data", "digits", "--out", tmp_path / "full")
    inside = tmp_path / "full" / "thesis.txt" / "out"
    assert "thesis.txt is a file; expected a folder" in refused(*command, "--data", "digits", "--out", inside)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "x"


def test_a_folder_with_foreign_files_alone_is_free_for_an_advice(tmp_path):
    for name in (".DS_Store", "._x", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    check_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match="holds something else than an advice"):
        check_folder(tmp_path)
