"""Moving tensors between devices without waiting."""

import torch
from torch import Tensor


def moved(tensor: Tensor, device: str | torch.device) -> Tensor:
    """A tensor on a device. From the host to a GPU it goes by pinned memory: else the host waits for the steps queued there."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
