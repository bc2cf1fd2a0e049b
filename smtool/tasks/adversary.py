"""The recipe table of the discriminator, its hinge losses, and its schedule of turns.

Sources: released-code.md#autoencoder-loss, released-code.md#discriminator.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.config import Config
from smtool.networks.dino_gan import DinoGAN
from smtool.networks.discriminator import PatchGAN
from smtool.regularizers import Pair
from smtool.training.optimizer import AdamW
from smtool.training.terms import AdaptiveWeight


class Schedule(Config):
    """When a discriminator is trained and used, with which weight, and what it sees."""

    weight: float = Field(0.5, gt=0, description="factor of the adversarial term, multiplied by the ratio of gradient norms")
    start: int = Field(
        50_001, ge=0, description="first step with the discriminator; before it, every step updates the autoencoder alone"
    )
    updates: Literal["alternating", "simultaneous"] = Field(
        "alternating", description="update one network per step in turn, or both in every step"
    )
    alone: int = Field(
        0, ge=0,
        description="steps from `start` on that update the discriminator alone, so that it knows reconstructions before it "
        "teaches; 1000 if model.init is given and discriminator.init is not",
    )
    ramp: int = Field(
        0, ge=0,
        description="steps after these in which `weight` rises linearly from 0; 1000 if model.init is given and "
        "discriminator.init is not",
    )
    adaptive: bool = Field(
        True, description="multiply `weight` by the ratio of gradient norms at the decoder's last layer; false: a fixed weight"
    )
    augment: float = Field(
        0.0, ge=0, le=1,
        description="probability, per step, that all images for the discriminator are translated, and that they are recoloured "
        "(DiffAugment); 0: never; 1 in RAE",
    )
    rounded: bool = Field(
        False, description="clamp and round decodings to 8 bits when the discriminator learns, as in RAE"
    )
    optimizer: AdamW | None = Field(None, description="optimizer of the discriminator; absent: the same settings as [optimizer]")

    @property
    def entry(self) -> int:
        """First step with the adversarial term."""
        return self.start + self.alone

    def weight_at(self, step: int) -> float:
        """The factor of the adversarial term in a step from `entry` on."""
        return self.weight * min(1.0, (step - self.entry + 1) / self.ramp) if self.ramp else self.weight

    def players_at(self, step: int) -> tuple[str, ...]:
        """The players that are updated in a step (counted from 0). Alternating: the autoencoder in even steps."""
        if step < self.start:
            return ("autoencoder",)
        if step < self.entry:
            return ("discriminator",)
        if self.updates == "simultaneous":
            return ("autoencoder", "discriminator")
        return ("discriminator",) if step % 2 else ("autoencoder",)

    @property
    def adaptive_weight(self) -> AdaptiveWeight | None:
        """The factor of the adversarial term."""
        return AdaptiveWeight("decoder") if self.adaptive else None

    def count_turns(self, player: str, steps: int) -> int:
        """Number of updates of the player in the first `steps` steps."""
        before, together = min(steps, self.start), max(0, steps - self.entry)
        alone = steps - before - together
        if self.updates == "simultaneous":
            return before + together if player == "autoencoder" else alone + together
        odd = steps // 2 - self.entry // 2 if together else 0
        return alone + odd if player == "discriminator" else before + together - odd


class Adversary(Schedule, PatchGAN):
    """A PatchGAN discriminator that is used from step `start` on; its term is also scaled by a ratio of gradient norms.

    updates = "alternating" updates the autoencoder and the discriminator in turn, each on a new batch, as the paper's released
    code does: 500k steps are then 275k updates of the autoencoder. "simultaneous" updates both on each batch, as LDM does.
    """

    kind: Literal["patchgan"] = "patchgan"
    init: str = Field(
        "",
        description="start from the discriminator in this run of train-ae, or in this checkpoint of LDM's trainer; empty: random "
        "weights",
    )


class DinoAdversary(Schedule, DinoGAN):
    """A discriminator on the tokens of a frozen DINO, used from step `start` on, as RAE's (arXiv 2510.11690).

    It learns by the hinge loss without the factor 1/2 of the released code, by which AdamW's steps do not change. Its term is
    scaled by the ratio of gradient norms at the decoder's last layer, |reconstruction's| / (|its own| + 1e-6), at most 1e4.
    """

    weight: float = Field(0.75, gt=0, description="factor of the adversarial term, multiplied by the ratio of gradient norms")
    augment: float = Field(
        1.0, ge=0, le=1,
        description="probability, per step, that all images for the discriminator are translated, and that they are recoloured "
        "(DiffAugment); 0: never",
    )
    rounded: bool = Field(True, description="clamp and round decodings to 8 bits when the discriminator learns")
    init: ClassVar[str] = ""

    @property
    def adaptive_weight(self) -> AdaptiveWeight | None:
        return AdaptiveWeight("decoder", offset=1e-6) if self.adaptive else None


def _patchgan_unless_told(table: Any) -> Any:
    """Set kind = "patchgan" where it is missing, as in old recipes."""
    return {"kind": "patchgan", **table} if isinstance(table, dict) else table


AnyAdversary = Annotated[Adversary | DinoAdversary, Field(discriminator="kind"), BeforeValidator(_patchgan_unless_told)]
"""[discriminator] of `train-ae`."""


def hinge_discriminator(discriminator: nn.Module, targets: Sequence[Tensor], decodings: Sequence[Tensor]) -> dict[str, Tensor]:
    """Mean of relu(1 - D(target)) + relu(1 + D(decoding)), without a factor 1/2; separate passes for targets and decodings.

    Returns the hinge loss and the mean logits of both, by which a collapse can be recognized in the log.
    """
    real = torch.cat([discriminator(x).flatten() for x in targets])
    fake = torch.cat([discriminator(x).flatten() for x in decodings])
    loss = F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()
    return {"discriminator": loss, "logits_real": real.float().mean(), "logits_fake": fake.float().mean()}


def hinge_generator(discriminator: nn.Module, pairs: Sequence[Pair], decodings: Sequence[Tensor]) -> Tensor:
    """Weighted sum over the pairs of minus the mean logit of the decoding."""
    terms = [-pair.weight * discriminator(x).float().mean() for pair, x in zip(pairs, decodings, strict=True)]
    return torch.stack(terms).sum()
