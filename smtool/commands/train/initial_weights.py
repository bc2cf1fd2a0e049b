"""Initial weights of a transformer from another run or a published file (`model.init`)."""

from pathlib import Path

import torch
from torch import Tensor

from smtool.checkpoints.diffusion import is_diffusion
from smtool.checkpoints.transformers import read_transformer
from smtool.errors import CheckpointError
from smtool.inference.diffusion_model import find_diffusion, read_diffusion
from smtool.networks.transformer import LatentTransformer

_CLASSES = ("y_embedder.embedding_table.weight", "label_emb.weight")


@torch.no_grad()
def start_from(network: LatentTransformer, what: str, *, kind: str, heads: int) -> str:
    """Copy the weights of a run of train-dit, or of a published file, into a network of the same shape.

    kind: of the network, as in recipes; heads: number of attention heads, which files do not state. If the classes differ, the
    class embeddings keep their initial values; any other difference raises CheckpointError. Returns a line for the log.
    """
    path, description, theirs, found = _weights(what, heads)
    if theirs != kind:
        raise CheckpointError(
            f'model.init: {path} ({description}) holds a network of kind "{theirs}", but model.kind is "{kind}".',
            hint=f'Use model.kind = "{theirs}", or the weights of another file.',
        )
    own = network.state_dict()
    anew = [name for name in _CLASSES if name in own and (name not in found or found[name].shape != own[name].shape)]
    others = {name: tensor for name, tensor in found.items() if name not in _CLASSES or (name in own and name not in anew)}
    names = sorted((own.keys() - set(anew)) ^ others.keys())
    names += [name for name in others if name in own and others[name].shape != own[name].shape]
    if names:
        name = names[0]
        sides = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (found, own)]
        raise CheckpointError(
            f"model.init: {path} ({description}) does not fit the recipe's [model]: {name} is {sides[0]} there, {sides[1]} here.",
            hint="Set size and patch in [model] to those of the file, and use latents of its shape.",
        )
    network.load_state_dict(others, strict=False)
    return f"starting from {description} in {path}" + (", with new class embeddings" if anew else "")


def _weights(what: str, heads: int) -> tuple[Path, str, str, dict[str, Tensor]]:
    """The file, a description of it, the kind of its network, and its weights by name."""
    path = find_diffusion(what)
    if is_diffusion(path):
        model = read_diffusion(path)
        description = f"step {model.metadata['step']} of a run of train-dit"
        return path, description, model.tables.model.kind, dict(model.network.state_dict())
    published = read_transformer(path, heads=heads)
    return path, published.description, published.config.kind, dict(published.tensors)
