"""Projectors from a transformer's tokens (B, T, width) to the teacher's dimension (B, T, teacher_dim)."""

from torch import Tensor, nn


def mlp_projector(width: int, teacher_dim: int, *, hidden: int) -> nn.Sequential:
    """REPA's projector: Linear, SiLU, Linear, SiLU, Linear; Xavier-uniform weights, zero biases (released-code.md#sit)."""
    sizes = (width, hidden, hidden, teacher_dim)
    first, second, third = (nn.Linear(sizes[i], sizes[i + 1]) for i in range(3))
    for layer in (first, second, third):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), third)


class ConvProjector(nn.Conv2d):
    """iREPA's projector: one convolution over the token grid (T is row-major), zero padding.

    Source: released-code.md#irepa-and-repa-dog.
    """

    def __init__(self, width: int, teacher_dim: int, *, kernel: int, token_grid: tuple[int, int]) -> None:
        super().__init__(width, teacher_dim, kernel, padding=kernel // 2)
        self.token_grid = token_grid

    def forward(self, input: Tensor) -> Tensor:
        grid = input.mT.unflatten(2, self.token_grid)                           # (B, width, h, w)
        return super().forward(grid).flatten(2).mT
