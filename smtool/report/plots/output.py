"""Conversion of figures: to files, to inline SVG for a page, to tensors for trackers."""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from smtool.report.plots.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_bytes(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """The bytes of a PNG or SVG file. Equal figures give equal bytes."""
    data = io.BytesIO()
    with styled():
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(data, format=kind, dpi=150, metadata=metadata)
    return data.getvalue()


def inline_svg(figure: "Figure", name: str, *, alt: str) -> str:
    """The figure as an <svg> element for a page: text stays text, no URLs, all ids begin with `name`.

    name: unique on the page. alt: what the figure shows, for screen readers.
    """
    data = io.StringIO()
    with styled({"svg.fonttype": "none"}):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = data.getvalue()
    drawing = drawing[drawing.index("<svg"):]
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, flags=re.DOTALL)
    drawing = drawing.replace("xlink:href", "href")
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawing)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    label = f'role="img" aria-label="{escape(alt)}" style="max-width: {width}px" viewBox="0 0 {width * 0.75:g} {height * 0.75:g}"'
    return re.sub(r"<svg[^>]*>", lambda _: f"<svg {label}>", drawing, count=1)


def rasterized(figure: "Figure") -> Tensor:
    """The figure as a tensor, uint8 (3, H, W), for trackers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with styled():
        canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)
