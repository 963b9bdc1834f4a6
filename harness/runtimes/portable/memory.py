"""How much memory a prediction may take: a constant, and so much for each byte of its package and of its inputs.

Sizes that a program computes while it runs are known to nobody before. What its values take together is bounded by the
pool that they are taken from (`engine`).
"""

FREE_BYTES = 768 << 20
"""For a package without weights and inputs of no size."""

_BYTES_A_MODEL_BYTE = 4
_BYTES_AN_INPUT_BYTE = 128
"""A network makes channels of an image's three colours, and keeps several layers' at once."""
_BYTES_A_STATE_BYTE = 4


def most_bytes(*, model: int, inputs: int = 0, states: int = 0) -> int:
    """Of all values of a prediction together, where the model with its Float32 weights, the inputs and the states have
    so many bytes."""
    return FREE_BYTES + _BYTES_A_MODEL_BYTE * model + _BYTES_AN_INPUT_BYTE * inputs + _BYTES_A_STATE_BYTE * states


def most_bytes_made(*, model: int) -> int:
    """Of states and of inputs that nobody gives: a package declares them, and we make them."""
    return most_bytes(model=model) // 4
