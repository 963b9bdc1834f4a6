"""What a message says of a name that is nearly right."""

from coreml_prune_bench.core.errors import did_you_mean


def test_the_nearest_names_are_shown():
    known = ["resnet50", "resnet18", "vit_b_16"]
    assert did_you_mean("resnet5", known) == "; did you mean 'resnet50'?"
    assert did_you_mean("resnet1", known, at_most=2) == "; did you mean 'resnet18' or 'resnet50'?"


def test_what_is_near_nothing_is_told_nothing_unless_it_is_asked_for():
    assert did_you_mean("xyz", ["resnet50"]) == ""
    assert did_you_mean("xyz", ["resnet50"], however_far=True) == "; did you mean 'resnet50'?"
    assert did_you_mean("xyz", [], however_far=True) == ""
