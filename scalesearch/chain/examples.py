"""The images of a data set as training takes them."""

import torch

from scalesearch.data import Dataset, ImageSplit
from scalesearch.data.mapped import ImageSource, planes
from scalesearch.training.train import Examples


def tensors(split: ImageSplit) -> tuple[torch.Tensor | ImageSource, torch.Tensor]:
    """Return a split's images, uint8 (N, C, H, W), and its targets (N, ...), as training takes them."""
    return planes(split.images), split.targets.tensor()


def examples(data: Dataset) -> Examples:
    """Return the train split, normalised as the whole data set is."""
    images, targets = tensors(data.train)
    return Examples(images=images, targets=targets, mean=data.mean, std=data.std)
