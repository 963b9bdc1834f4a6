"""`cache`: the table, the JSON, and what is cleared and bounded under processes that use it."""

import gc
import json

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.data import Split
from coreml_prune_bench.data.image_cache import ImageCache
from coreml_prune_bench.runtimes.portable import load
from tests.data.test_image_cache import COUNT, SIZE, Drawn, split_of
from tests.packages import from_mil


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_prepared_images_stay_while_they_are_read_and_are_prepared_again_afterwards(cache, run_bench):
    source = Drawn()
    split: Split = split_of(source)
    with ImageCache(split, SIZE) as images:
        images.prepare()
        run_bench("cache", "clear", "digests")  # of code, written where nothing in this process has hashed it before
        assert run_bench("cache", "clear")[1] == "images: 1 kept, because a process uses them\n"
        first = [batch.images.copy() for batch in images.batches(32)]
    code, output, errors = run_bench("cache", "clear", "images", "--json")
    (cleared,) = json.loads(output)
    assert (code, errors, cleared["kind"], cleared["entries"], cleared["used"]) == (0, "", "images", 1, 0)
    assert cleared["size_bytes"] >= COUNT * 3 * SIZE**2
    assert run_bench("cache", "clear")[1] == "nothing to remove\n"
    with ImageCache(split, SIZE) as images:
        images.prepare()
        assert all(np.array_equal(a, b.images) for a, b in zip(first, images.batches(32), strict=True))
    assert len(source.decoded) == 2 * COUNT


def test_a_translated_package_stays_while_it_is_loaded(cache, run_bench, tmp_path):
    weight = np.ones((640, 640), np.float32)
    path = from_mil(tmp_path / "m.mlpackage", lambda x: mb.linear(x=x, weight=weight), (1, 640))
    model = load(path)
    assert run_bench("cache", "bound", "--max-size", "0B")[1] == "portable: 1 kept, because a process uses them\n"
    x = np.ones((1, 640), np.float32)
    (before,) = model.predict({"x": x}).values()
    del model
    gc.collect()
    assert run_bench("cache", "bound", "--max-size", "1kB")[1].startswith("portable: 1 removed, 1.7 MB")
    assert not [entry for entry in (cache / "portable").iterdir() if entry.name != ".lock"]
    (after,) = load(path).predict({"x": x}).values()
    assert np.array_equal(before, after)


def test_the_list_is_a_table_or_json(cache, run_bench, tmp_path):
    (cache / "digests").mkdir(parents=True)
    (cache / "digests" / "a.json").write_text("{}")
    table = run_bench("cache")[1]
    assert "| digests     | hashes of files, for as long as they do not change   | 1 " in table
    assert table.splitlines()[-1].endswith(f"in {cache} and results/local")
    listed = json.loads(run_bench("cache", "--json", "--results", tmp_path / "mine")[1])
    assert (listed["cache"], listed["results"]) == (str(cache), str(tmp_path / "mine"))
    (digests,) = (kind for kind in listed["kinds"] if kind["kind"] == "digests")
    assert (digests["entries"], digests["used"], digests["cleared"]) == (1, 0, "by default")
    assert listed["size_bytes"] == digests["size_bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clear", "imagse"), "did you mean 'images'?"),
        (("clear", "artifacts"), "are results, which this never removes"),
        (("bound", "--max-size", "5 apples"), "--max-size 5 apples: expected a number of bytes with its unit"),
        (("--json", "clear"), "options belong behind the command: cache clear --json"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arguments, message, cache, refused):
    assert message in refused("cache", *arguments)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("0", 0), ("5GB", 5 * 10**9), ("2GiB", 2 << 30), ("1.5 kb", 1500), ("7B", 7), ("3T", 3 * 10**12)],
)
def test_sizes_are_read_with_their_units(size, expected):
    from coreml_prune_bench.cli.cache import _bytes

    assert _bytes(size) == expected
