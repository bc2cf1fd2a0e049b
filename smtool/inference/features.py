"""Features of images from a frozen extractor, batch by batch."""

from collections.abc import Iterable

import torch
from torch import Tensor

from smtool.devices import to_device
from smtool.features.extractor import Extractor


@torch.no_grad()
def pooled_features(extractor: Extractor, parts: Iterable[Tensor]) -> Tensor:
    """Batches of uint8 images (B, C, H, W) -> float32 features (N, dim) on the CPU, computed on the extractor's device."""
    return torch.cat([extractor(to_device(part, extractor.device)).cpu() for part in parts])
