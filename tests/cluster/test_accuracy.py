"""`accuracy --cluster`: the images are divided, and what is found is what one process finds."""

import json

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.cluster.asked import AskedImages
from coreml_prune_bench.cluster.image_parts import parts
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.cluster.workplace import Workplace
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.data import open_data
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.records.accuracy import read_records
from tests.cluster.clusters import Cluster


@pytest.mark.parametrize(
    ("images", "workers", "count", "first"),
    [(50_000, 1, 13, 4096), (50_000, 4, 16, 3136), (50_000, 64, 196, 256), (5_000, 2, 8, 640), (100, 8, 1, 100)],
)
def test_parts_are_whole_blocks_that_hold_every_image_once(images, workers, count, first):
    found = parts(images, workers)
    assert [place for part in found for place in part] == list(range(images))
    assert (len(found), len(found[0])) == (count, first)
    assert all(part.start % 64 == 0 for part in found)


def test_a_worker_takes_the_data_that_has_these_images_and_is_refused_where_none_has(images):
    digits = open_data("digits").val.fingerprint
    asked = AskedImages("digits", digits, versions())
    place = Workplace("m", "cpu", versions(), data=(f"imagefolder:{images}", "resnet50=digits"))
    data, differences = asked.look(place, Reporter())
    assert (data.spec, differences) == ("digits", [])
    place = Workplace("m", "cpu", versions(), data=(f"imagefolder:{images}",))
    data, (line,) = asked.look(place, Reporter())
    assert data is None
    other = open_data(f"imagefolder:{images}").val.fingerprint
    assert line == (
        f"val of imagefolder:{images} has the fingerprint {other[:12]} there, and of digits {digits[:12]} here"
    )


def test_a_part_of_the_spec_is_a_part_of_the_workers_data():
    from coreml_prune_bench.data.halves import open_data_or_part

    few = open_data_or_part("digits#70")
    data, differences = AskedImages(few.spec, few.val.fingerprint, versions()).look(
        Workplace("m", "cpu", versions(), data=("digits",)), Reporter()
    )
    assert (data.spec, differences) == ("digits#70", [])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--runtime", "coreml"), "--cluster: its workers predict by the portable runtime; leave out --runtime coreml"),
        (
            ("--time-limit", 9),
            "--time-limit is of a process of this machine; --task-time-limit is of a step on a worker",
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_a_line(refused, tmp_path, options, line):
    command = ("accuracy", tmp_path / "x.mlpackage", "--data", "digits", "--cluster", "local:1")
    assert refused(*command, *options) == f"error: {line}"


def package(path, sign):
    """Tells digits apart a little, by which of ten columns of pixels is lightest, or darkest."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 32))], opset_version=ct.target.iOS17)
    def program(image):
        columns = mb.reduce_mean(x=image, axes=[1, 2], keep_dims=False)  # [1, 32]
        return mb.mul(x=mb.slice_by_size(x=columns, begin=[0, 11], size=[1, 10]), y=np.float32(sign))

    with silenced():
        inputs, target = [ct.ImageType("image", (1, 3, 32, 32))], ct.target.iOS17
        ct.convert(program, inputs=inputs, minimum_deployment_target=target, skip_model_load=True).save(str(path))
    return path


@pytest.fixture
def packages(tmp_path):
    return [package(tmp_path / "light.mlpackage", 1), package(tmp_path / "dark.mlpackage", -1)]


@pytest.mark.slow
def test_what_workers_find_together_is_what_one_process_finds(run_bench, packages, tmp_path):
    command = ("accuracy", *packages, "--data", "digits", "--json", "--results")
    code, here, errors = run_bench(*command, tmp_path / "here")
    assert code == 0, errors
    code, there, errors = run_bench(*command, tmp_path / "there", "--cluster", "local:2", "--threads", 1)
    assert code == 0, errors
    assert json.loads(there) == json.loads(here)
    alone, together = read_records(tmp_path / "here"), read_records(tmp_path / "there")
    assert [one.key for one in together] == [one.key for one in alone]
    for one, other in zip(alone, together, strict=True):
        assert len(one.predictions.labels) > 256  # so that there are two parts
        assert other.predictions == one.predictions
        assert set(other.provenance.host.split(", ")) <= {"local-1", "local-2"}


@pytest.mark.slow
def test_over_tls_who_has_other_images_is_left_out_and_errors_name_the_clients_package(images, packages, tmp_path):
    cluster = Cluster(tmp_path)
    try:
        cluster.join("box", "--as", "cpu")
        cluster.join("wrong", "--as", "cpu", "--data", f"imagefolder:{images}")
        code, output, errors = cluster.call("accuracy", *packages, "--data", "digits", "--json", "--threads", 1)
        assert code == 0, errors
        assert "warning: wrong is left out: val of imagefolder:" in errors
        assert [one["images"] for one in json.loads(output)] == [len(open_data("digits").val)] * 2
        damaged = tmp_path / "damaged.mlpackage"
        damaged.mkdir()
        code, output, errors = cluster.call("accuracy", damaged, "--data", "digits")
        assert (code, output) == (2, "")
        assert errors.splitlines()[-1].startswith(f"error: box: {damaged}")
    finally:
        cluster.end()
