"""Torch's operations through Apple's converter and the portable runtime; needs Core AI's packages."""

import logging

import pytest

pytest.importorskip("coreai", reason="coreai-core is not installed")
pytest.importorskip("coreai_torch", reason="coreai-torch is not installed")

from tests.runtimes.portable.coreai import conformance

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


@pytest.mark.slow
def test_apples_list_agrees_with_torch_but_for_what_is_listed() -> None:
    log = logging.getLogger(__name__)
    outcomes, converter = conformance.all_tried(log.info)
    for line in conformance.counts(outcomes, converter):
        log.info(line)
    assert not conformance.unlike(outcomes, converter)
