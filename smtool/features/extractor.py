"""A frozen network that maps images to feature vectors, with the properties that the passport of a score states."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from smtool.features.frozen import Frozen
from smtool.features.pictures import Pictures, as_rgb
from smtool.features.protocol import Resize, resized

View = Literal["pooled", "spatial", "logits"]
"""Input of a score: pooled features; for sFID, an earlier spatial feature map; for the inception score, class logits."""


class Extractor(Frozen):
    """uint8 images -> features (B, dim) float32. Images have one to four channels (`as_rgb`), and one size or several.

    name: used in `--features` and in score names; digest: sha256 of its weights.
    size: side that every image is resized to by itself, by the rule `resize`; None: images are not resized.
    mean, std: per channel, for intensities in [0, 255]. is_published_inception: whether its Frechet distance is an FID.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        digest: str,
        dim: int,
        size: int | None,
        resize: Resize,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        is_published_inception: bool = False,
    ) -> None:
        super().__init__(network)
        self.name, self.digest, self.dim = name, digest, dim
        self.size, self.rule = size, resize
        self.is_published_inception = is_published_inception
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    @property
    def resize(self) -> str:
        """The resize rule in words, for passports."""
        return "none" if self.size is None else f"{self.rule} to {self.size}"

    @property
    def score(self) -> str:
        """Name of a Frechet distance on these features. Only the published Inception weights give an FID."""
        if self.is_published_inception:
            return "fid"
        return f"fd_inception_{self.digest[:8]}" if self.name == "inception" else f"fd_{self.name}"

    @property
    def views(self) -> tuple[View, ...]:
        """The views that `look` returns; Inception from a state dict also has "spatial" and "logits"."""
        return getattr(self.network, "views", ("pooled",))

    @torch.no_grad()
    def forward(self, images: Pictures) -> Tensor:
        x = self._prepared(images)
        features = self.network(x).float().flatten(1)
        if features.shape[1] != self.dim:
            raise ValueError(f"{self.name} gives {features.shape[1]} features at {tuple(x.shape[-2:])} px, not {self.dim}")
        return features

    @torch.no_grad()
    def look(self, images: Pictures) -> Mapping[View, Tensor]:
        """All views of the images from one forward pass, each (B, its dim) float32, also under autocast.

        Images of several sizes that are not resized have a forward pass each.
        """
        if self.size is None and not isinstance(images, Tensor):
            parts = [self.look(image[None]) for image in images]
            return {view: torch.cat([part[view] for part in parts]) for view in self.views}
        if len(self.views) == 1:
            return {"pooled": self(images)}
        with torch.autocast(self.device.type, enabled=False):
            return self.network.look(self._prepared(images))  # type: ignore[operator]

    def _prepared(self, images: Pictures) -> Tensor:
        """The images (B, 3, size, size), resized and normalized. Raises ValueError if they are not uint8 of 1 to 4 channels."""
        if not isinstance(images, Tensor):
            return torch.cat([self._prepared(image[None]) for image in images])
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"uint8 images (B, C, H, W) are needed, found {images.dtype} {tuple(images.shape)}")
        colors = as_rgb(images)
        x = colors.float() if self.size is None else resized(colors, self.size, self.rule)
        return (x - self.mean) / self.std
