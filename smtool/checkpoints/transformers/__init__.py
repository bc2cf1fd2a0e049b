"""Published diffusion transformers: one module for each family of files."""

from smtool.checkpoints.transformers.published import PublishedTransformer
from smtool.checkpoints.transformers.read import read_transformer

__all__ = ["PublishedTransformer", "read_transformer"]
