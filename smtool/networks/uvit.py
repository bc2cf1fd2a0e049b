"""U-ViT: a transformer with time and class as tokens and long skip connections (arXiv 2209.12152; released-code.md#u-vit)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from smtool.networks.recompute import Recomputable
from smtool.networks.transformer import (
    MLP,
    LatentTransformer,
    PatchEmbed,
    Prediction,
    SelfAttention,
    Shape,
    TransformerConfig,
    time_features,
    unpatchify,
)


class UViT(TransformerConfig):
    """U-ViT, with published or custom sizes. Its time input is the number of the noise level, 1 to 1000."""

    SIZES: ClassVar[dict[str, Shape]] = {
        "nano": Shape(6, 128, 4),
        "S": Shape(12, 512, 8),
        "S-deep": Shape(16, 512, 8),
        "M": Shape(16, 768, 12),
        "L": Shape(20, 1024, 16),
        "H": Shape(28, 1152, 16),
    }
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]] = (2, "the sines and cosines of the time")

    kind: Literal["uvit"] = "uvit"
    size: Literal["nano", "S", "S-deep", "M", "L", "H", "custom"] = Field(
        "S", description='S to H: published sizes; "nano": small, for CPUs; "custom": depth, width and heads as given'
    )
    depth: int = Field(
        0, ge=0, validate_default=True,
        description="number of blocks without the middle one, an even number; absent: that of `size`",
    )
    final_conv: bool = Field(
        True, description="end with a 3x3 convolution over the latent; the published H and DCTdiff's networks have none"
    )
    null_class: bool = Field(
        True, description="embed the null class too; false: no guidance and no label dropout, as published for ImageNet 64"
    )

    @field_validator("depth")
    @classmethod
    def _two_halves(cls, depth: int) -> int:
        if depth % 2:
            raise ValueError(f"must be even, because the middle block has equally many before and after it, but is {depth}")
        return depth

    @property
    def has_null_class(self) -> bool:
        return self.null_class

    def build(self, latent_shape: tuple[int, int, int], num_classes: int) -> "UViTNetwork":
        return UViTNetwork(self, latent_shape, num_classes)


class UViTNetwork(LatentTransformer):
    """The network of U-ViT. Tokens: [class, if there are classes; time; patches]. Blocks: in-blocks, middle block, out-blocks."""

    def __init__(self, config: UViT, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(config, latent_shape, num_classes)
        width, channels, half = config.width, latent_shape[0], config.depth // 2
        self.config = config
        self.depth = config.depth + 1
        self.patch_embed = PatchEmbed(channels, width, patch=config.patch)
        rows = num_classes + config.null_class                                        # last row: the null class
        self.label_emb = nn.Embedding(rows, width) if num_classes else None
        self.num_extra = 2 if num_classes else 1
        num_tokens = self.num_extra + self.token_grid[0] * self.token_grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.in_blocks = nn.ModuleList(UViTBlock(width, heads=config.heads) for _ in range(half))
        self.mid_block = UViTBlock(width, heads=config.heads)
        self.out_blocks = nn.ModuleList(SkipBlock(width, heads=config.heads) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, config.patch**2 * channels)
        self.final_layer = nn.Conv2d(channels, channels, 3, padding=1) if config.final_conv else nn.Identity()
        self._initialize()

    def predict(self, x: Tensor, t: Tensor, labels: Tensor | None, tap: int | None) -> Prediction:
        tokens = self._embedded(x, t, labels)
        skips: list[Tensor] = []
        tapped = None
        for number, block in enumerate((*self.in_blocks, self.mid_block, *self.out_blocks), start=1):
            tokens = block(tokens, skips.pop()) if isinstance(block, SkipBlock) else block(tokens)
            if number <= len(self.in_blocks):
                skips.append(tokens)
            if number == tap:
                tapped = tokens[:, self.num_extra :]
        patches = self.decoder_pred(self.norm(tokens[:, self.num_extra :]))
        output = self.final_layer(unpatchify(patches, grid=self.token_grid, patch=self.config.patch))
        return Prediction(output, tapped)

    def _embedded(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """(B, T + 1 or T + 2, width): class, time and patch tokens, with learned position embeddings added."""
        tokens = [time_features(t, self.width)[:, None], self.patch_embed(x)]
        if self.label_emb is not None:
            tokens.insert(0, self.label_emb(labels)[:, None])
        return torch.cat([token.to(self.pos_embed.dtype) for token in tokens], 1) + self.pos_embed

    def _initialize(self) -> None:
        """Initialize as the released code (released-code.md#u-vit); the class embedding keeps PyTorch's default, N(0, 1)."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class UViTBlock(Recomputable):
    """Attention, then MLP, each applied to normalized tokens and added to the tokens."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads=heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, gelu="none")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SkipBlock(UViTBlock):
    """A block of the second half: it first combines the tokens with those of the corresponding block of the first half."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__(width, heads=heads)
        self.skip_linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        joined = self.skip_linear(torch.cat([x, skip], -1))
        return super().forward(joined.to(x.dtype))  # the residual stream stays float32 under autocast
