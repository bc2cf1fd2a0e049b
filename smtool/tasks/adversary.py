"""The discriminator's table, its hinge losses, and whose turn a step is (facts sections 2.1 to 2.3)."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.networks.discriminator import PatchGAN
from smtool.regularizers import Pair
from smtool.training.optimizer import AdamW


class Adversary(PatchGAN):
    """A PatchGAN that the autoencoder plays against from step `start` on, weighted by the ratio of gradient norms.

    "alternating" gives each player every other step and a fresh batch, as the paper's released code does: 500k steps are then
    275k updates of the autoencoder. "simultaneous" updates both on each batch, as LDM does.
    """

    weight: float = Field(0.5, gt=0, description="factor of the adversarial term, beside the gradient-norm ratio")
    start: int = Field(50_001, ge=0, description="steps before the discriminator joins in")
    updates: Literal["alternating", "simultaneous"] = Field("alternating", description="every other step, or every step")
    optimizer: AdamW | None = Field(None, description="absent: the autoencoder's table")

    def players_at(self, step: int) -> tuple[str, ...]:
        """Whose turns the step (from 0) consists of. Alternating: even steps are the autoencoder's."""
        if step < self.start:
            return ("autoencoder",)
        if self.updates == "simultaneous":
            return ("autoencoder", "discriminator")
        return ("discriminator",) if step % 2 else ("autoencoder",)

    def count_turns(self, player: str, steps: int) -> int:
        """How many of the first `steps` steps hold a turn of the player."""
        before, after = min(steps, self.start), max(0, steps - self.start)
        if self.updates == "simultaneous":
            return before + after if player == "autoencoder" else after
        odd = steps // 2 - before // 2 if after else 0
        return odd if player == "discriminator" else steps - odd


def hinge_discriminator(discriminator: nn.Module, targets: Sequence[Tensor], decodings: Sequence[Tensor]) -> dict[str, Tensor]:
    """Mean of relu(1 - D(target)) + relu(1 + D(decoding)), no factor 1/2; targets and decodings pass separately.

    Returns the hinge loss and the mean logits, the curves by which a collapse is seen.
    """
    real = torch.cat([discriminator(x).flatten() for x in targets])
    fake = torch.cat([discriminator(x).flatten() for x in decodings])
    loss = F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()
    return {"discriminator": loss, "logits_real": real.float().mean(), "logits_fake": fake.float().mean()}


def hinge_generator(discriminator: nn.Module, pairs: Sequence[Pair], decodings: Sequence[Tensor]) -> Tensor:
    """Weighted sum over the pairs of minus the mean logit of the decoding."""
    terms = [-pair.weight * discriminator(x).float().mean() for pair, x in zip(pairs, decodings, strict=True)]
    return torch.stack(terms).sum()
