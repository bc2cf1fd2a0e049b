"""The alignment of a run: projector and teacher, with the teacher's features from a cache or computed while training."""

from dataclasses import dataclass
from pathlib import Path

from smtool.commands.prepare.features import cached_features
from smtool.commands.train.run_folder import RunFolder
from smtool.data.features.shards import FeatureShards, open_features
from smtool.data.images.reader import ImageShards
from smtool.diffusion import Alignment, AnyAlignment, WeightedAlignment
from smtool.errors import DataError
from smtool.features.teachers import Teacher, load_teacher
from smtool.networks.transformer import LatentTransformer
from smtool.randomness import initializing
from smtool.recipe import TrainDiT

ONLINE = "online"


@dataclass(frozen=True)
class Aligned:
    """The [alignment] of a run, built. cache: the teacher's features; None if the teacher computes them while training."""

    table: AnyAlignment
    module: Alignment
    teacher: Teacher
    cache: FeatureShards | None

    @property
    def weighted(self) -> WeightedAlignment:
        return WeightedAlignment(self.module, self.table.weight, self.table.depth)

    @property
    def source(self) -> str:
        """Where the features come from: "online", or the digest of the cache."""
        return ONLINE if self.cache is None else self.cache.card.digest


def assemble_alignment(
    tables: TrainDiT,
    network: LatentTransformer,
    images: ImageShards,
    folder: RunFolder,
    device: str,
    weights_dir: Path | None,
) -> Aligned | None:
    """Build the alignment of a recipe; None without an [alignment] table.

    The teacher is loaded even if its features are cached, because the cache is identified by its weights. A resumed run takes
    its features from the same source as before, else DataError is raised.
    """
    table = tables.alignment
    if table is None:
        return None
    teacher = load_teacher(table.teacher, token_grid=network.token_grid, weights_dir=weights_dir)
    with initializing(tables.seed, "alignment"):
        module = table.build(network.width, network.token_grid, teacher_dim=teacher.dim, teacher_grid=teacher.grid).to(device)
    cache = _cache(table.features, teacher, images, flip=tables.data.flip, before=folder.recorded("features"))
    return Aligned(table, module, teacher.to(device) if cache is None else teacher, cache)


def _cache(asked: str, teacher: Teacher, images: ImageShards, *, flip: bool, before: str | None) -> FeatureShards | None:
    """before: source of the features when the run was last started; None for a new run."""
    if ONLINE in (asked, before):
        return None
    if asked == "auto":
        cache = cached_features(teacher, images, flip=flip)
    else:
        cache = open_features(asked, teacher=teacher, images=images)
        if flip:
            cache.check_flip()
    found = None if cache is None else cache.card.digest
    if before is not None and found != before:
        now = "no longer exists" if found is None else f"has been replaced by {found[:8]}"
        raise DataError(
            f"The run was started with the cached features {before[:8]} of {teacher.name}; that cache {now}.",
            hint="Prepare it again with the same settings, which gives the same bytes, or start again with --fresh.",
        )
    return cache
