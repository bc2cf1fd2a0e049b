"""What JPEG saves and costs: size and error of some images beside lossless PNG, for the summary of `prepare`."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from smtool.data.images.card import JpegPrice
from smtool.data.images.entries import Entry, Sample, make_samples
from smtool.data.images.transform import Rule, encode

PRICED_IMAGES = 16
SUGGESTED = "jpeg:95"


def jpeg_price(entries: Sequence[Entry], rule: Rule) -> JpegPrice | None:
    """Prepare the first entries once more, as PNG, and compare with JPEG of the rule's quality, or of 95 if the rule is PNG.

    None for images with alpha, which JPEG cannot store, and if none of the entries is usable.
    """
    if rule.mode in ("LA", "RGBA"):
        return None
    chosen = SUGGESTED if rule.image_format == "png" else rule.image_format
    found = [made for made in make_samples(list(entries[:PRICED_IMAGES]), rule.lossless()) if isinstance(made, Sample)]
    if not found:
        return None
    png, jpeg, squares = 0, 0, 0.0
    for sample in found:
        with Image.open(io.BytesIO(sample.data)) as image:
            data = encode(image, chosen)
            with Image.open(io.BytesIO(data)) as coded:
                squares += np.square(np.asarray(image, np.float64) - np.asarray(coded, np.float64)).mean()
        png, jpeg = png + len(sample.data), jpeg + len(data)
    psnr = round(10 * math.log10(255**2 * len(found) / squares), 1) if squares else None
    return JpegPrice(
        format=chosen, images=len(found), png_bytes=round(png / len(found)), jpeg_bytes=round(jpeg / len(found)), psnr=psnr
    )
