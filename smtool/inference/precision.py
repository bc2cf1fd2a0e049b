"""The precision in which a transformer computes while it samples."""

from smtool.devices import has_bf16
from smtool.diffusion import Sampler
from smtool.inference.diffusion_model import DiffusionModel
from smtool.training.precision import Precision


def stated_precision(sampler: Sampler, trained: Precision, device: str) -> Precision:
    """The sampler's precision; for "auto", that of the transformer's training (`trained`) on a GPU, else fp32.

    A network that was trained with the rounding of a format has learnt to predict with it, and its activations fit into it.
    Nothing is known of published weights, whose recipes say fp32.
    """
    if sampler.precision != "auto":
        return sampler.precision
    usable = device.startswith("cuda") and (trained != "bf16" or has_bf16(device))
    return trained if usable else "fp32"


def with_precision(sampler: Sampler, model: DiffusionModel, device: str) -> Sampler:
    """The sampler with a stated precision for this model on this device."""
    return sampler.model_copy(update={"precision": stated_precision(sampler, model.tables.precision, device)})
