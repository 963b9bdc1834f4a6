"""The published table, as it is committed."""

import pytest

from coreml_prune_bench.published.table import published_counterpart, read_table
from tests.models.modes import MODES, post


@pytest.mark.parametrize(
    ("config", "has_one"), [(post(sparsity=0.5), True)] + [(config, False) for config, *_ in MODES]
)
def test_a_published_counterpart_is_of_single_weights_by_one_share_in_float16(config, has_one):
    settings = config.model_dump(mode="json")
    found = published_counterpart(read_table(), "ResNet50", 0.5, settings)
    assert (found.config if found else None) == ("Unstructured Sparsity 50%" if has_one else None)
