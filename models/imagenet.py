"""How large ImageNet-1k (ILSVRC 2012) is: what its networks, its copies on disk and its published accuracies share."""

IMAGENET_CLASSES = 1000
IMAGENET_SIZE = 224
"""The width and height in which its networks take images."""
IMAGENET_VALIDATION_IMAGES = 50_000
