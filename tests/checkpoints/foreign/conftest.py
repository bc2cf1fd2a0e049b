"""LDM's autoencoders, restated independently of smtool: random weights under LDM's names, and the functions of its layers."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

WIDTHS, BLOCKS, CHANNELS, CODE_WIDTH = (32, 64, 64), 2, 5, 3
Weights = dict[str, torch.Tensor]


def ldm_weights(*, attention: tuple[int, ...] = (), quant: bool = True, codes: int = 0) -> Weights:
    """Random weights under LDM's names, in the order of its constructors; codes > 0: those of its VQModel."""
    made: Weights = {}
    draw = torch.Generator().manual_seed(0)

    def conv(name: str, a: int, b: int, side: int = 3) -> None:
        made[f"{name}.weight"] = torch.randn(b, a, side, side, generator=draw) / (side * a**0.5)
        made[f"{name}.bias"] = 0.1 * torch.randn(b, generator=draw)

    def norm(name: str, a: int) -> None:
        made[f"{name}.weight"] = 1 + 0.1 * torch.randn(a, generator=draw)
        made[f"{name}.bias"] = 0.1 * torch.randn(a, generator=draw)

    def block(name: str, a: int, b: int) -> None:
        norm(f"{name}.norm1", a)
        conv(f"{name}.conv1", a, b)
        norm(f"{name}.norm2", b)
        conv(f"{name}.conv2", b, b)
        if a != b:
            conv(f"{name}.nin_shortcut", a, b, 1)

    def attend(name: str, a: int) -> None:
        norm(f"{name}.norm", a)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", a, a, 1)

    def middle(name: str, a: int) -> None:
        block(f"{name}.block_1", a, a)
        attend(f"{name}.attn_1", a)
        block(f"{name}.block_2", a, a)

    conv("encoder.conv_in", 3, WIDTHS[0])
    now = WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        for i in range(BLOCKS):
            block(f"encoder.down.{level}.block.{i}", now, width)
            now = width
            if level in attention:
                attend(f"encoder.down.{level}.attn.{i}", now)
        if level < len(WIDTHS) - 1:
            conv(f"encoder.down.{level}.downsample.conv", now, now)
    middle("encoder.mid", now)
    norm("encoder.norm_out", now)
    conv("encoder.conv_out", now, CHANNELS if codes else 2 * CHANNELS)
    conv("decoder.conv_in", CHANNELS, now)
    middle("decoder.mid", now)
    for level in reversed(range(len(WIDTHS))):
        for i in range(BLOCKS + 1):
            block(f"decoder.up.{level}.block.{i}", now, WIDTHS[level])
            now = WIDTHS[level]
            if level in attention:
                attend(f"decoder.up.{level}.attn.{i}", now)
        if level:
            conv(f"decoder.up.{level}.upsample.conv", now, now)
    norm("decoder.norm_out", now)
    conv("decoder.conv_out", now, 3)
    if codes:
        conv("quant_conv", CHANNELS, CODE_WIDTH, 1)
        conv("post_quant_conv", CODE_WIDTH, CHANNELS, 1)
        made["quantize.embedding.weight"] = torch.randn(codes, CODE_WIDTH, generator=draw)
    elif quant:
        conv("quant_conv", 2 * CHANNELS, 2 * CHANNELS, 1)
        conv("post_quant_conv", CHANNELS, CHANNELS, 1)
    return made


class LDM:
    """LDM's Encoder and Decoder as functions of a dictionary of weights; a layer is used if its weights exist.

    Computed in float64.
    """

    def __init__(self, weights: Weights) -> None:
        self.w = {name: value.double() for name, value in weights.items()}

    def conv(self, name: str, x: torch.Tensor, **options) -> torch.Tensor:
        weight = self.w[f"{name}.weight"]
        options.setdefault("padding", weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.w[f"{name}.bias"], **options)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps=1e-6)

    def swish(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(f"{name}.conv1", self.swish(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", self.swish(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.w else x)

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")
        scores = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5, dim=2)
        return x + self.conv(f"{name}.proj_out", torch.einsum("bij,bcj->bci", scores, v).view_as(x))

    def level(self, name: str, x: torch.Tensor) -> torch.Tensor:
        i = 0
        while f"{name}.block.{i}.conv1.weight" in self.w:
            x = self.block(f"{name}.block.{i}", x)
            if f"{name}.attn.{i}.q.weight" in self.w:
                x = self.attend(f"{name}.attn.{i}", x)
            i += 1
        assert i
        return x

    def middle(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.block(f"{name}.block_2", self.attend(f"{name}.attn_1", self.block(f"{name}.block_1", x)))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv("encoder.conv_in", x)
        for level in range(len(WIDTHS)):
            x = self.level(f"encoder.down.{level}", x)
            if level < len(WIDTHS) - 1:
                x = self.conv(f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
        x = self.conv("encoder.conv_out", self.swish(self.norm("encoder.norm_out", self.middle("encoder.mid", x))))
        return self.conv("quant_conv", x) if "quant_conv.weight" in self.w else x

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        z = self.conv("post_quant_conv", z) if "post_quant_conv.weight" in self.w else z
        x = self.middle("decoder.mid", self.conv("decoder.conv_in", z))
        for level in reversed(range(len(WIDTHS))):
            x = self.level(f"decoder.up.{level}", x)
            if level:
                x = self.conv(f"decoder.up.{level}.upsample.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return self.conv("decoder.conv_out", self.swish(self.norm("decoder.norm_out", x)))

    def quantize(self, z: torch.Tensor) -> torch.Tensor:
        """The nearest entry of the codebook for each cell."""
        entries, cells = self.w["quantize.embedding.weight"], z.movedim(1, -1)
        nearest = (cells.unsqueeze(-2) - entries).square().sum(-1).argmin(-1)
        return entries[nearest].movedim(-1, 1)


@pytest.fixture(scope="session")
def ldm() -> SimpleNamespace:
    """weights(attention=, quant=, codes=), restated(weights), and the sizes of the weights."""
    return SimpleNamespace(
        weights=ldm_weights, restated=LDM, widths=WIDTHS, blocks=BLOCKS, channels=CHANNELS, code_width=CODE_WIDTH
    )
