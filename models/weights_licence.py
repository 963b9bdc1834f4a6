"""What is known of the terms under which pre-trained weights may be used: it travels with packages made of them.

Imports no torch; timm where its weights are asked about.
"""

import re

_TORCHVISION = (
    "torchvision's pre-trained weights: may have terms of their own, derived from the data they were trained on "
    "(torchvision's README, Pre-trained Model License)"
)
_OF_TORCHVISION = re.compile(r"\w+_Weights\.\w+|torchvision's default for .+")
_OF_TIMM = "timm's for "
_TORCHVISIONS_FILES = ("047dcff4", "0676ba61", "b0353104")
"""With what the SHA-256 begins of the files that torchvision hands out for our networks; their names end so."""


def licence_of(weights: str) -> str | None:
    """What is to be known of weights that `weights_fingerprint` identifies so; None where that is not known."""
    is_file = re.fullmatch("[0-9a-f]{64}", weights) and weights.startswith(_TORCHVISIONS_FILES)
    if is_file or _OF_TORCHVISION.fullmatch(weights):
        return _TORCHVISION
    return _of_timm(weights.removeprefix(_OF_TIMM)) if weights.startswith(_OF_TIMM) else None


def _of_timm(name: str) -> str | None:
    try:
        import timm
    except ImportError:
        return None
    config = timm.get_pretrained_cfg(name)
    return f"timm's weights: {config.license}" if config and config.license else None
