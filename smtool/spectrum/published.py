"""Spectra printed in the released analysis of Spectrum Matching (arXiv 2603.14645), as data for plots and tests.

Every curve is measured with `REFERENCE.curve` (DC kept, log1p on, 16 bins) and averaged over many images; its values sum to 1
(released-code.md#published-curves). The release does not say whether its latent curves are those of f8d4 or f16d16. Do not draw
these curves in a plot of PHYSICAL spectra.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NUM_BINS = 16

_CELEBA = """
 rgb  rgb-delta0.6  rgb-delta1  rgb-delta1.2  sd-vae  scale-equivariance  dsm  esm
.4057 .2747 .1961 .1627 .1671 .1666 .1638 .1658
.2333 .1931 .1560 .1374 .1312 .1385 .1471 .1483
.1190 .1210 .1099 .1021 .0833 .1134 .1202 .1130
.0835 .0989 .0977 .0941 .0710 .0955 .1037 .0985
.0424 .0610 .0677 .0687 .0587 .0789 .0774 .0754
.0317 .0517 .0617 .0646 .0538 .0685 .0677 .0652
.0194 .0361 .0472 .0515 .0513 .0620 .0529 .0531
.0142 .0291 .0404 .0455 .0476 .0493 .0415 .0446
.0108 .0242 .0358 .0414 .0460 .0438 .0377 .0387
.0091 .0220 .0340 .0401 .0455 .0393 .0337 .0363
.0076 .0194 .0313 .0377 .0438 .0283 .0290 .0329
.0060 .0164 .0278 .0342 .0419 .0494 .0306 .0295
.0053 .0153 .0266 .0333 .0408 .0175 .0258 .0260
.0044 .0132 .0238 .0302 .0398 .0163 .0242 .0249
.0040 .0124 .0229 .0294 .0393 .0159 .0230 .0246
.0035 .0114 .0212 .0272 .0389 .0170 .0216 .0233
"""

_IMAGENET = """
 rgb  rgb-delta0.8  rgb-delta1  dinov2  rgb-va-vae-set  rgb-va-vae-set-delta1  va-vae
.4657 .2622 .2178 .2288 .4636 .2158 .1893
.1913 .1427 .1268 .1442 .1917 .1274 .1489
.0997 .0977 .0921 .1042 .1005 .0928 .1356
.0666 .0808 .0797 .0824 .0668 .0801 .1029
.0388 .0582 .0602 .0629 .0391 .0607 .0707
.0265 .0470 .0505 .0515 .0266 .0507 .0551
.0217 .0438 .0484 .0458 .0218 .0486 .0508
.0162 .0369 .0420 .0395 .0163 .0421 .0414
.0131 .0334 .0389 .0353 .0133 .0391 .0336
.0123 .0338 .0401 .0339 .0124 .0399 .0325
.0103 .0307 .0372 .0335 .0103 .0371 .0331
.0097 .0309 .0379 .0300 .0096 .0375 .0257
.0076 .0260 .0325 .0281 .0076 .0322 .0219
.0069 .0249 .0314 .0273 .0069 .0314 .0205
.0067 .0251 .0320 .0268 .0067 .0320 .0198
.0069 .0258 .0326 .0258 .0068 .0326 .0181
"""

_LABELS = {
    "rgb": "RGB", "rgb-va-vae-set": "RGB (VA-VAE's set)", "dinov2": "DINOv2", "va-vae": "VA-VAE",
    "sd-vae": "SD-VAE", "scale-equivariance": "Scale Equivariance", "dsm": "DSM", "esm": "ESM, delta 1",
}


@dataclass(frozen=True)
class PublishedCurve:
    """One printed curve. name: its key in `published_curves`. label: for a legend. values: bins 1 to 16, which sum to 1."""

    name: str
    label: str
    values: tuple[float, ...]


def published_curves() -> Mapping[str, PublishedCurve]:
    """All printed curves by name: "celeba/rgb", "celeba/rgb-delta1", "celeba/esm", ..., "imagenet/dinov2", "imagenet/va-vae".

    Source: released-code.md#published-curves.
    """
    return _CURVES


def _parse(data: str, title: str, table: str) -> dict[str, PublishedCurve]:
    header, *rows = table.strip().splitlines()
    columns = zip(*(map(float, row.split()) for row in rows), strict=True)
    return {f"{data}/{name}": PublishedCurve(f"{data}/{name}", f"{title} {_label(name)}, published", values)
            for name, values in zip(header.split(), columns, strict=True)}


def _label(name: str) -> str:
    base, delta_mark, delta = name.partition("-delta")
    return f"{_LABELS[base]} target, delta {delta}" if delta_mark else _LABELS[base]


_CURVES = MappingProxyType(_parse("celeba", "CelebA", _CELEBA) | _parse("imagenet", "ImageNet", _IMAGENET))
