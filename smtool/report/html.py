"""A self-contained HTML page: text, tables, commands and pictures in a single file that loads nothing from outside."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from torch import Tensor

from smtool.report.plots import inline_svg
from smtool.report.style_sheet import STYLE
from smtool.report.tables import Table
from smtool.storage import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Content security policy: the browser loads nothing from outside the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

MOST_PNG_BYTES = 300_000

Tone = Literal["good", "warn", "note"]
_SIGNS: dict[Tone, tuple[str, str]] = {"good": ("✓", "good"), "warn": ("!", "warning"), "note": ("·", "note")}


@dataclass(frozen=True)
class Statement:
    """A sentence with its tone. The tone is shown by a sign, with a word for screen readers, not by colour alone."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Card:
    """Statements about one thing, in a box; several cards stand side by side."""

    title: str
    subtitle: str
    statements: Sequence[Statement]


class Page:
    """A page, built block by block from top to bottom. All text is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._blocks = [f"<h1>{escape(title)}</h1>"]
        self._contents: list[tuple[str, str]] = []
        self._num_figures = 0

    def section(self, title: str) -> None:
        """Add a heading, which is also listed in the table of contents."""
        anchor = f"{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}-{len(self._contents) + 1}"
        self._contents.append((anchor, title))
        self._blocks.append(f'<h2 id="{anchor}">{escape(title)}</h2>')

    def text(self, paragraph: str) -> None:
        self._blocks.append(f"<p>{escape(paragraph)}</p>")

    def commands(self, *lines: str) -> None:
        """Add lines in a fixed-width block, such as commands."""
        self._blocks.append(f"<pre><code>{escape(chr(10).join(lines))}</code></pre>")

    def table(self, table: Table) -> None:
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows)
        note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
        caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
        self._blocks.append(
            f'<div class="scroll"><table>{caption}\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>{note}"
        )

    def summary(self, summary: Mapping[str, str]) -> None:
        """Add a list of names with their descriptions."""
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>\n" for name, said in summary.items())
        self._blocks.append(f"<dl>{rows}</dl>")

    def cards(self, cards: Sequence[Card]) -> None:
        """Add cards, side by side if the window is wide enough, in rows of two or three."""
        wide = "24rem" if len(cards) in (2, 4) else "19rem"
        self._blocks.append(f'<div class="cards" style="--card: {wide}">{"".join(_card(card) for card in cards)}</div>')

    def figure(self, figure: "Figure", *, alt: str, caption: str) -> None:
        """Add a figure as inline SVG. alt: what it shows, for screen readers."""
        self._num_figures += 1
        self._framed(inline_svg(figure, f"figure{self._num_figures}", alt=alt), caption)

    def pixels(self, image: Tensor, *, alt: str, caption: str) -> None:
        """Add a picture, uint8 (3, H, W), at full width, with sharp pixels."""
        self._framed(_img(image, alt), caption)

    def pixels_beside(self, pictures: Sequence[tuple[Tensor, str]]) -> None:
        """Add pictures, each with its caption, side by side if the window is wide enough."""
        self._blocks.append('<div class="beside">')
        for image, caption in pictures:
            self._framed(_img(image, caption), caption)
        self._blocks.append("</div>")

    def data(self, name: str, value: Any) -> None:
        """Add invisible data for programs: JSON in a <script type="application/json" id="name">, which browsers do not run."""
        text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")      # the data cannot contain "</script>"
        self._blocks.append(f'<script type="application/json" id="{escape(name)}">{text}</script>')

    def html(self) -> str:
        """The page as HTML text."""
        items = "".join(f'<li><a href="#{anchor}">{escape(title)}</a></li>' for anchor, title in self._contents)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f'<nav aria-label="Contents"><ol>{items}</ol></nav>\n<main>\n'
            + "\n".join(self._blocks) + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        write_text(path, self.html())

    def _framed(self, picture: str, caption: str) -> None:
        below = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._blocks.append(f"<figure>{picture}{below}</figure>")


def _img(image: Tensor, alt: str) -> str:
    """An <img> with PNG data; with JPEG (quality 90, no chroma subsampling) if the PNG is larger than MOST_PNG_BYTES."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    kind, data = "png", io.BytesIO()
    picture.save(data, "PNG", optimize=image.numel() < MOST_PNG_BYTES)
    if data.tell() > MOST_PNG_BYTES:
        kind, data = "jpeg", io.BytesIO()
        picture.save(data, "JPEG", quality=90, subsampling=0)
    uri = f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
    return f'<img src="{uri}" alt="{escape(alt)}" class="pixels">'


def _card(card: Card) -> str:
    items = "".join(
        f'<li class="tone-{statement.tone}"><span class="sign" role="img" aria-label="{_SIGNS[statement.tone][1]}">'
        f"{_SIGNS[statement.tone][0]}</span>{_led(statement.text)}</li>"
        for statement in card.statements
    )
    subtitle = f'<p class="note">{escape(card.subtitle)}</p>' if card.subtitle else ""
    return f"<section><h3>{escape(card.title)}</h3>{subtitle}<ul>{items}</ul></section>"


def _led(text: str) -> str:
    """Escaped HTML of a sentence; the part up to the first colon is bold."""
    lead, colon, rest = text.partition(": ")
    return f"<strong>{escape(lead)}{colon}</strong>{escape(rest)}" if colon else escape(text)
