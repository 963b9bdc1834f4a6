"""Labels and probabilities that are added to a finished package, against those that coremltools converts."""

from pathlib import Path
from typing import Any

import coremltools as ct
import pytest
import torch
from torch import Tensor, nn

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.classifier import add_labels, add_softmax
from coreml_prune_bench.mlprogram.reader import specification
from coreml_prune_bench.models.quiet import silenced

LABELS = ["ant", "bee", "cat"]


class Softmaxed(nn.Module):
    """Softmax in Float32 behind a layer in Float16, as it is added afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(x), -1)


def converted() -> Any:
    torch.manual_seed(0)
    with silenced():
        traced = torch.jit.trace(Softmaxed().eval(), torch.rand(1, 8))
        names = ct.ClassifierConfig(LABELS)
        model = ct.convert(
            traced,
            inputs=[ct.TensorType("x", shape=(1, 8))],
            classifier_config=names,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
    return model.get_spec()


def block_of(model: Any) -> Any:
    (main,) = model.mlProgram.functions.values()
    (block,) = main.block_specializations.values()
    return block


def test_the_end_is_the_one_that_coremltools_writes(package: Path) -> None:
    model, theirs = specification(package), converted()
    add_softmax(model)
    add_labels(model, LABELS)
    assert list(model.description.output) == list(theirs.description.output)
    for name in ("predictedFeatureName", "predictedProbabilitiesName"):
        assert getattr(model.description, name) == getattr(theirs.description, name)
    ours, reference = block_of(model), block_of(theirs)
    assert list(ours.outputs) == list(reference.outputs)
    end, expected = ours.operations[-1], reference.operations[-1]
    assert (end.type, list(end.outputs)) == (expected.type, list(expected.outputs))
    assert end.inputs["classes"] == expected.inputs["classes"]
    kinds = [[op.type for op in block.operations if op.type != "const"][-2:] for block in (ours, reference)]
    assert kinds[0] == kinds[1] == ["softmax", "classify"]
    ours_axis, their_axis = (
        next(op for op in block.operations if op.outputs[0].name == softmax.inputs["axis"].arguments[0].name)
        for block in (ours, reference)
        for softmax in [next(op for op in block.operations if op.type == "softmax")]
    )
    assert ours_axis.attributes["val"] == their_axis.attributes["val"]


def test_what_returns_no_scores_is_refused(package: Path) -> None:
    with pytest.raises(PackageError, match=r"has shape \[1, 3\], expected \[1, 2\]: a label each"):
        add_labels(specification(package), LABELS[:2])
    labelled = specification(package)
    add_labels(labelled, LABELS)
    with pytest.raises(PackageError, match="it returns classLabel, classLabel_probs, expected one array of scores"):
        add_softmax(labelled)
