"""A data set of some of ImageNet's classes: the head keeps their rows, whether the network is trained on or not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.head_rows import head_rows
from coreml_prune_bench.bench.run import Outcome, RunOptions, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.data import load_images, open_data
from coreml_prune_bench.data.imagenet import wordnet_ids
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weights import initial_model, load_pretrained, untrained_model
from coreml_prune_bench.records.store import Store
from tests.tiny_network import TINY

PLACES = (207, 3, 999)
SUITE = """
description = "rows of a head"
models = ["tiny"]
weights = "pretrained"
image_size = 32
[[configs]]
algorithm = "post-training"
sparsity = 0.5
"""


@pytest.fixture
def some_of_imagenet(images: Path) -> Path:
    names = [wordnet_ids()[place] for place in PLACES]
    for split in ("train", "val"):
        for old, new in zip("abc", names, strict=True):
            (images / split / old).rename(images / split / new)
    (images / "classes.txt").write_text("\n".join(names))
    return images


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    torch.save(untrained_model(TINY, 1000).state_dict(), tmp_path / "weights" / "tiny.pth")
    return tmp_path / "weights"


def ran(spec: str, weights: Path, folder: Path) -> Outcome:
    suite = folder / "rows.toml"
    suite.write_text(SUITE)
    cells = lay_out(choose(load_suite(str(suite)), data=[spec]), weights)
    return run(cells, RunOptions(Store(folder / "results")))


def test_classes_of_imagenet_are_known_by_their_wordnet_ids_to_a_head_of_its_thousand():
    ids = wordnet_ids()
    assert head_rows([ids[place] for place in PLACES], 1000) == PLACES
    assert head_rows(ids, 1000) == tuple(range(1000))
    assert head_rows(["cat", ids[0]], 1000) is None
    assert head_rows([ids[0], ids[1]], 21843) is None
    assert head_rows(["cat", "dog"], 2) == (0, 1)


def test_without_training_the_package_tells_the_rows_classes_apart(some_of_imagenet, weights, tmp_path):
    """Against torch, on the whole head, the rows of the classes taken out afterwards."""
    spec = f"imagefolder:{some_of_imagenet}"
    found = ran(spec, weights, tmp_path)
    whole = initial_model(TINY, load_pretrained(TINY, weights), 1000)
    val = open_data(spec).val
    with torch.no_grad():
        expected = whole(normalize(load_images(val, np.arange(12), 32)))[:, list(PLACES)].argmax(1).tolist()
    (dense,) = [record for record in found.records if record.pruning.algorithm == "dense"]
    assert dense.predictions
    assert [best[0] for best in dense.predictions.top5] == expected


def test_a_training_begins_with_the_rows(weights):
    state = load_pretrained(TINY, weights)
    model = initial_model(TINY, state, 3, rows=PLACES)
    assert torch.equal(model.classifier.weight, state["classifier.weight"][list(PLACES)])
    assert torch.equal(model.classifier.bias, state["classifier.bias"][list(PLACES)])


def test_other_classes_still_need_a_training(images, weights, tmp_path):
    with pytest.raises(BenchError, match=r"has 3 classes, the weights of tiny 1000; for a new head"):
        ran(f"imagefolder:{images}", weights, tmp_path)
