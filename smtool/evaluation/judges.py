"""Maps names of reconstruction scores to the formulas and networks that compute them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from smtool.data.batches import to_signed
from smtool.errors import RecipeError
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.features.perceptual import LPIPSNet, PerceptualDistance
from smtool.features.protocol import Protocol
from smtool.metrics.reconstruction import SSIM_WINDOW, psnr, ssim, ssim_reflected

SCORES = ("psnr", "ssim", *(f"lpips_{net}" for net in get_args(LPIPSNet)), "fid")
DEFAULT_SCORES = frozenset({"psnr", "ssim"})
DEFAULT_FEATURES = ("random",)


@dataclass(frozen=True)
class PairJudge:
    """A score of each image against its reconstruction.

    measure: images and reconstructions (B, 3, H, W) -> (B,). pixels: its input: "coded", uint8 after the protocol's codec
    (PSNR), "uint8", before the codec, or "float", the decoder's output (SSIM, LPIPS). metric: its name in the passport.
    network: the network that computes it, None for a formula.
    """

    name: str
    title: str
    metric: str
    better: Literal["higher", "lower"]
    measure: Callable[[Tensor, Tensor], Tensor]
    pixels: Literal["coded", "uint8", "float"]
    smallest_side: int
    network: PerceptualDistance | None = None


@dataclass(frozen=True)
class Judges:
    """All scores that one pass computes."""

    pairs: tuple[PairJudge, ...]
    extractors: tuple[Extractor, ...]

    def to(self, device: str) -> "Judges":
        for network in (*self.extractors, *(judge.network for judge in self.pairs if judge.network)):
            network.to(device)
        return self

    @property
    def networks(self) -> dict[str, str]:
        """Name of a score -> name of the network that computes it."""
        trunks = {judge.name: judge.network.trunk for judge in self.pairs if judge.network}
        return trunks | {extractor.score: extractor.name for extractor in self.extractors}


def build_judges(
    scores: Iterable[str], features: Sequence[str], protocol: Protocol, *, weights_dir: Path | None = None
) -> Judges:
    """Judges for names of SCORES and of extractors; by default PSNR, SSIM and fd_random, which need no downloaded weights.

    Raises RecipeError for an unknown score, WeightsError for missing weights, before anything is computed.
    """
    options = set(scores)
    if unknown := sorted(options - set(SCORES)):
        raise RecipeError(f"there is no score of reconstructions called {unknown[0]!r}.", hint=f"Scores are {', '.join(SCORES)}.")
    if not options and not features:
        options, features = set(DEFAULT_SCORES), DEFAULT_FEATURES
    names = dict.fromkeys([*(["inception"] if "fid" in options else []), *features])
    return Judges(
        pairs=tuple(_pair_judge(name, protocol, weights_dir) for name in SCORES if name in options and name != "fid"),
        extractors=tuple(load_extractor(name, weights_dir=weights_dir, protocol=protocol) for name in names),
    )


def _pair_judge(name: str, protocol: Protocol, weights_dir: Path | None) -> PairJudge:
    if name == "psnr":
        return PairJudge("psnr", "PSNR, dB", "psnr", "higher", psnr, pixels="coded", smallest_side=1)
    if name == "ssim" and protocol.ssim == "reflect":
        metric, side = "ssim, reflect-padded, in [-1, 1]", SSIM_WINDOW // 2 + 1
        return PairJudge("ssim", "SSIM (reflect-padded)", metric, "higher", ssim_reflected, pixels="float", smallest_side=side)
    if name == "ssim":
        return PairJudge("ssim", "SSIM", "ssim", "higher", ssim, pixels="uint8", smallest_side=SSIM_WINDOW)
    network = PerceptualDistance(name.removeprefix("lpips_"), weights_dir)  # type: ignore[arg-type]

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return network(to_signed(x), to_signed(y)) if protocol.pairs == "uint8" else network(x, y)

    title, side = f"LPIPS ({name.removeprefix('lpips_')})", network.smallest_input
    return PairJudge(name, title, "lpips", "lower", distance, pixels=protocol.pairs, smallest_side=side, network=network)
