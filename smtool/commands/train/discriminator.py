"""Initial weights of a discriminator from another run or a checkpoint of LDM's trainer (`discriminator.init`)."""

import re
from pathlib import Path

from torch import nn

from smtool.checkpoints.tensor_file import TensorFile
from smtool.commands.train.run_folder import RunFolder
from smtool.errors import CheckpointError
from smtool.training.checkpoint import Checkpoints

_LAYER = re.compile(r"^(?:discriminator/layers|(?:.*\.)?discriminator\.main|main)\.(\d+\.\w+)$")
"""Names of the numbered layers in checkpoints of smtool and of LDM's trainer; both number them alike."""


def start_discriminator(discriminator: nn.Module, what: str) -> str:
    """Copy the weights of a PatchGAN of the same shape into `discriminator`. Returns a line for the log.

    what: run folder of train-ae, of which the newest checkpoint is used, or a file. Raises CheckpointError.
    """
    path = _file(what)
    file = TensorFile(path)
    own = discriminator.state_dict()
    found = _layers(file)
    if not found:
        raise CheckpointError(
            f"discriminator.init: {path} holds no PatchGAN.",
            hint="Pass a run of train-ae with a [discriminator], or a checkpoint of LDM's trainer with its loss.",
        )
    shapes = {new: file.shapes[old] for old, new in found.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if shapes != expected:
        name = next(name for name in sorted(expected | shapes) if expected.get(name) != shapes.get(name))
        raise CheckpointError(
            f"discriminator.init: {path} does not fit the recipe's [discriminator]: {name} is "
            f"{shapes.get(name, 'absent')} there, {expected.get(name, 'absent')} here.",
            hint=f"Set {_settings(shapes)} in [discriminator].",
        )
    tensors = file.read(found)
    discriminator.load_state_dict({name: tensors[name].to(own[name].dtype) for name in own})
    return f"discriminator starts from {path}"


def _file(what: str) -> Path:
    for folder in (Path(what), Path("runs") / what):
        checkpoints = Checkpoints(RunFolder(folder).checkpoints, 1, 0)
        if (step := checkpoints.latest()) is not None:
            return checkpoints.folder / f"{step:08d}" / "model.safetensors"
    if Path(what).is_file():
        return Path(what)
    raise CheckpointError(
        f"discriminator.init: {what} is no file and no run with a checkpoint.",
        hint="ckpt.safetensors holds no discriminator; pass the folder of the run, whose checkpoints/ has it.",
    )


def _layers(file: TensorFile) -> dict[str, str]:
    """Name in the file -> name in smtool's network."""
    return {name: f"layers.{match[1]}" for name in file.shapes if (match := _LAYER.match(name))}


def _settings(shapes: dict[str, tuple[int, ...]]) -> str:
    """The keys of [discriminator] that fit these shapes: one stride-2 convolution per normalization, after the first."""
    convolutions = sorted((int(name.split(".")[1]), shape) for name, shape in shapes.items() if len(shape) == 4)
    return f"num_layers = {len(convolutions) - 2} and channels = {convolutions[0][1][0]}"
