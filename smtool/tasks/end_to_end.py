"""Training an autoencoder and a diffusion transformer together (REPA-E, arXiv 2504.10483; released-code.md#repa-e)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smtool.data.batches import ImageBatch, signed, to_uint8
from smtool.devices import image_layout, to_device
from smtool.networks.latent_norm import LatentNorm
from smtool.randomness import Streams
from smtool.tasks.autoencoder import AutoencoderTask
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.training.terms import Loss, Term

AUTOENCODER, DISCRIMINATOR = "autoencoder", "discriminator"
HINGE = 0.5
"""Factor of the discriminator's loss in the released code."""


@dataclass(frozen=True)
class _Shared:
    """What the autoencoder's turn leaves to the later turns of a step, all detached: raw latents, features of the teacher,
    targets and decodings."""

    latents: Tensor
    features: Tensor
    targets: list[Tensor]
    decodings: list[Tensor]


class EndToEndTask:
    """Players, in the order of their turns: the autoencoder, the discriminator (if there is one), the transformer.

    Each image is encoded, decoded and seen by the teacher once per step, in the turn of the autoencoder; the later turns use
    these latents and decodings, of the autoencoder before its update. weight: of the alignment loss of the autoencoder.
    norm: normalizes latents, in place of the statistics of `diffusion`; it is part of the transformer's player.
    """

    def __init__(self, autoencoding: AutoencoderTask, diffusion: DiffusionTask, norm: LatentNorm, *, weight: float) -> None:
        self.autoencoding = autoencoding
        self.diffusion = diffusion
        self.norm = norm
        self.weight = weight
        transformer = nn.ModuleDict({**dict(diffusion.players[PLAYER].named_children()), "latent_norm": norm})
        self.players: Mapping[str, nn.Module] = {**autoencoding.players, PLAYER: transformer}
        self._shared: dict[int, _Shared] = {}

    def players_at(self, step: int) -> tuple[str, ...]:
        return tuple(self.players)

    def count_turns(self, player: str, steps: int) -> int:
        return steps

    def loss(self, player: str, batch: ImageBatch, draws: Streams, step: int) -> Loss:
        """The loss of one player; the turn of the autoencoder must come first.

        Autoencoder: the loss of `AutoencoderTask`, plus weight times the alignment loss of its latents, normalized by the running
        statistics, through the transformer up to the aligned block, with all labels. Discriminator: half of the hinge loss.
        Transformer: the loss of `DiffusionTask` on latents normalized by the statistics of the batch, without gradients to the
        autoencoder, and with the times and noise of the autoencoder's turn.
        """
        if player == AUTOENCODER:
            return self._autoencoder_loss(batch, draws, step)
        if player == DISCRIMINATOR:
            shared = self._shared[draws.start]
            loss = self.autoencoding.judged(shared.targets, shared.decodings, draws)
            return Loss(HINGE * loss.total, loss.values)
        shared = self._shared.pop(draws.start)
        return self.diffusion.loss_of(self.norm(shared.latents), batch.labels, shared.features, draws)

    def _autoencoder_loss(self, batch: ImageBatch, draws: Streams, step: int) -> Loss:
        given = to_device(batch.images, draws.device)
        images = signed(given)
        with torch.no_grad():
            pixels = given if given.dtype == torch.uint8 else to_uint8(given)
            features = self.diffusion.features(pixels, batch.features, draws.device)
        images = images.contiguous(memory_format=image_layout(draws.device, images.shape[-2:]))
        passed = self.autoencoding.passed(images, draws)
        terms = self.autoencoding.terms(passed, draws, step)
        distance = self._alignment(passed.encoding.latents, batch.labels, features, draws)
        terms.append(Term("latent_alignment", distance, self.weight))
        self._shared[draws.start] = _Shared(
            passed.encoding.latents.detach(),
            features,
            [pair.images.detach() for pair in passed.pairs],
            [decoding.detach() for decoding in passed.decodings],
        )
        return self.autoencoding.weighted(terms)

    def _alignment(self, latents: Tensor, labels: Tensor | None, features: Tensor, draws: Streams) -> Tensor:
        """Minus the mean cosine between the transformer's projected tokens and the features; gradients flow to the latents."""
        alignment = self.diffusion.alignment
        assert alignment is not None
        noised = self.diffusion.noised(self.norm.running(latents), draws.of_turn(PLAYER))
        known = self.diffusion.labels_on(labels, draws.device)
        tokens = self.diffusion.network.tokens(noised.x_t, noised.network_time, known, tap=alignment.depth)
        return alignment.module(tokens, features)
