"""Records the trainers of REPA and iREPA by running their main(): python -m recorder.repa CASE CHECKOUT OUT.

Replaced are the data set and its loader (given moments, images and labels in order), random numbers (torch.randn_like, torch.rand
and, for lognormal times, torch.randn; the order of the calls identifies them), initial weights, the teacher (a given convolution
after the released preprocessing), the autoencoder, the images sampled during training, and the channel statistics that iREPA
loads from a file. The transformer is the released class at a small size.
"""

import importlib
import itertools
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers.models  # noqa: F401  must precede the stand-ins, whose modules it looks for
import torch
from given import float64, numbers, recording
from given import transformer_cases as cases
from given.summary import change, copied
from torch import Tensor, nn

from recorder import stand_ins, watch
from recorder.checkouts import IREPA, REPA


def main(name: str, checkout: Path, out: Path) -> None:
    case = next(case for case in cases.CASES if case.name == name)
    trainer = _imported(checkout, case)
    with float64.everywhere(), tempfile.TemporaryDirectory() as folder:
        built = _replaced(trainer, case)
        trainer.main(trainer.parse_args(_arguments(Path(folder), case)))
        average = change(built["initial"], our_names(built["average"]))
    source = (IREPA if case.alignment == "irepa" else REPA).source
    command = f"make parity REFERENCE=path: python -m recorder.repa {name}"
    recording.write(out, {**source, "command": command, "steps": watch.steps, "average": average})


def our_names(network: nn.Module) -> dict[str, nn.Parameter]:
    """Trained parameters by smtool's names: those of the transformer are the same; the projector is a separate module."""
    names = {}
    for name, parameter in network.named_parameters():
        place = name.replace("projection_layer.", "")
        first = "projectors.0."
        ours = f"alignment.projector.{place.removeprefix(first)}" if place.startswith(first) else f"network.{name}"
        if name != "pos_embed":  # a fixed table
            names[ours] = parameter
    return names


def _imported(checkout: Path, case: cases.Case) -> Any:
    stand_ins.stand_in("wandb", "dataset", "dictdot")
    if case.alignment == "repa":
        stand_ins.stand_in("utils")
    sys.modules["samplers"] = SimpleNamespace(euler_sampler=lambda model, latents, *args, **kwargs: latents)  # type: ignore[assignment]
    sys.path.insert(0, str(checkout / "ldm" if case.alignment == "irepa" else checkout))
    return importlib.import_module("train")


def _replaced(trainer: Any, case: cases.Case) -> dict[str, Any]:
    built: dict[str, Any] = {}

    def transformer(**kwargs: Any) -> nn.Module:
        network = importlib.import_module("models.sit").SiT(
            depth=cases.DEPTH,
            hidden_size=cases.WIDTH,
            decoder_hidden_size=cases.WIDTH,
            patch_size=cases.PATCH,
            num_heads=cases.HEADS,
            projector_dim=cases.HIDDEN,
            class_dropout_prob=cases.DROPOUT,
            **kwargs,
        )
        parameters = our_names(network)
        numbers.fill(parameters, "transformer")
        watch.watch("transformer", parameters)
        built["initial"] = copied(parameters)
        return network

    update_average = trainer.update_ema

    def update_ema(average: nn.Module, network: nn.Module, decay: float = cases.EMA_DECAY) -> None:
        built["average"] = average
        update_average(average, network, decay=decay)

    picture = SimpleNamespace(sample=torch.zeros(1, 3, 8, 8))
    codec = SimpleNamespace(decode=lambda latents: picture, load_state_dict=lambda state: None)
    codec.to = codec.eval = lambda *args: codec
    trainer.SiT_models = {"small": transformer}
    trainer.update_ema = update_ema
    trainer.Accelerator = watch.WatchedAccelerator
    trainer.DataLoader = lambda *args, **kwargs: stand_ins.Batches(_batch, cases.STEPS)
    trainer.CustomDataset = trainer.HFImgLatentDataset = lambda *args, **kwargs: range(cases.IMAGES * cases.STEPS)
    trainer.AutoencoderKL = SimpleNamespace(from_pretrained=lambda name: codec)
    trainer.VAE_F8D4 = lambda: codec
    trainer.load_encoders = lambda *args, **kwargs: _irepa_teacher() if case.alignment == "irepa" else _repa_teacher()
    torch.load = lambda path, **kwargs: _statistics()  # type: ignore[assignment]
    torch.optim.AdamW = watch.WatchedAdamW  # type: ignore[misc]
    _give_draws()
    return built


def _batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    return cases.images(step), torch.cat(cases.mean_and_std(step), 1), cases.labels(step)


def _repa_teacher() -> tuple[list[Any], list[str], list[str]]:
    return [cases.PatchTeacher()], ["dinov2"], ["vit"]


def _irepa_teacher() -> list[Any]:
    encoder = importlib.import_module("vision_encoder").DINOv2Encoder("dinov2", "vit", "b", torch.device("cpu"))
    encoder.model = cases.PatchTeacher()
    encoder._embed_dim = encoder.model.embed_dim
    return [encoder]


def _statistics() -> dict[str, Tensor]:
    mean, std = cases.channel_stats()
    return {"latents_scale": 1 / std, "latents_bias": mean}


def _give_draws() -> None:
    """Per step: noise of the posterior, time, noise, label dropout. The trainer samples one more posterior before step 0."""
    like, flat, draw = itertools.count(), itertools.count(), torch.randn

    def randn_like(tensor: Tensor, **kwargs: Any) -> Tensor:
        number = next(like) - 1
        return numbers.normal(tensor.shape, "noise" if number % 2 else "posterior", max(number, 0) // 2)

    def rand(size: Any, **kwargs: Any) -> Tensor:
        number = next(flat)
        shape = (size,) if isinstance(size, int) else tuple(size)
        return numbers.uniform((cases.IMAGES,), "label dropout" if number % 2 else "time", number // 2).reshape(shape)

    def randn(*size: Any, **kwargs: Any) -> Tensor:
        shape = tuple(size[0]) if isinstance(size[0], tuple) else size
        return cases.normal_of(rand(shape)) if shape[1:] == (1, 1, 1) else draw(*size, **kwargs)

    torch.randn_like, torch.rand, torch.randn = randn_like, rand, randn  # type: ignore[assignment]


def _arguments(folder: Path, case: cases.Case) -> list[str]:
    values: dict[str, Any] = {
        "output-dir": folder,
        "exp-name": "parity",
        "model": "small",
        "num-classes": cases.CLASSES,
        "encoder-depth": cases.TAP,
        "batch-size": cases.IMAGES,
        "mixed-precision": "no",
        "max-train-steps": cases.STEPS,
        "learning-rate": cases.LR,
        "path-type": case.path,
        "weighting": case.weighting,
        "proj-coeff": cases.ALIGNMENT_WEIGHT,
        "num-workers": 0,
    }
    flags = []
    if case.alignment == "irepa":
        values |= {"projection-layer-type": "conv", "proj-kwargs-kernel-size": 3, "spnorm-method": "zscore"}
        flags = ["--repa-loss", "--no-compile"]
    return [part for key, value in values.items() for part in (f"--{key}", str(value))] + flags


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
