"""Torch's operations through Apple's converter and the portable runtime; needs Core AI's packages."""

import logging

import pytest
import torch
from torchvision.models import VisionTransformer

pytest.importorskip("coreai", reason="coreai-core is not installed")
pytest.importorskip("coreai_torch", reason="coreai-torch is not installed")

from tests.runtimes.portable.coreai import conformance
from tests.runtimes.portable.coreai.cases import Try, real

SOME = ("convolution.default", "avg_pool2d.default", "while_loop", "polar.default", "add")


@pytest.mark.parametrize("entry", SOME)
def test_operation_agrees_with_torch(entry: str) -> None:
    """The first of its tries, as a user does: through the reader's own process."""
    converter = conformance.Converter()
    try:
        outcome = conformance.tried(converter, conformance.GROUPS[entry][0])
    finally:
        converter.close()
    assert (outcome.kind, outcome.why) == ("agrees", "")
    assert entry in converter.reached


def test_attention_and_its_class_token_run_a_batch_at_once() -> None:
    """Whose samples Core AI's program adds as [tokens, width] to [1, tokens, width]."""
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    torch.nn.init.normal_(network.heads.head.weight)  # zeros at first
    converter = conformance.Converter()
    try:
        outcome = conformance.tried(converter, Try(network, (real(1, 3, 32, 32),), tolerance=1e-4))
    finally:
        converter.close()
    assert (outcome.kind, outcome.why, outcome.any_batch) == ("agrees", "", True)


@pytest.mark.slow
def test_apples_list_agrees_with_torch_but_for_what_is_listed() -> None:
    log = logging.getLogger(__name__)
    outcomes, converter = conformance.all_tried(log.info)
    for line in conformance.counts(outcomes, converter):
        log.info(line)
    assert not conformance.unlike(outcomes, converter)
