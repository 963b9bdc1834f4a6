"""Random numbers in a test are the same whether it runs alone, in its file or in another order."""

import numpy as np
import pytest
import torch


@pytest.mark.parametrize(("drawn", "torchs"), [(584, 472), (855, 618)], ids=["one", "other"])
def test_random_numbers_follow_from_the_tests_name(draw: np.random.Generator, drawn: int, torchs: int) -> None:
    assert draw.integers(1000) == drawn
    assert int(torch.randint(1000, ())) == torchs
