"""One self-contained page: text, tables, commands and pictures in a single file that asks no other address for anything."""

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

# The browser itself refuses whatever is not in the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

MOST_PNG_BYTES = 300_000

Tone = Literal["good", "warn", "note"]
_SIGNS: dict[Tone, tuple[str, str]] = {"good": ("✓", "good"), "warn": ("!", "look here"), "note": ("·", "note")}


@dataclass(frozen=True)
class Statement:
    """A sentence with its tone, which is shown by a sign and read aloud as a word, not by colour alone."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Card:
    """Statements about one thing, for a row of cards side by side."""

    title: str
    subtitle: str
    statements: Sequence[Statement]


class Page:
    """Collects blocks from top to bottom. All text given to it is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._blocks = [f"<h1>{escape(title)}</h1>"]
        self._contents: list[tuple[str, str]] = []
        self._num_figures = 0

    def section(self, title: str) -> None:
        """A heading, which the table of contents names."""
        anchor = f"{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}-{len(self._contents) + 1}"
        self._contents.append((anchor, title))
        self._blocks.append(f'<h2 id="{anchor}">{escape(title)}</h2>')

    def text(self, paragraph: str) -> None:
        self._blocks.append(f"<p>{escape(paragraph)}</p>")

    def commands(self, *lines: str) -> None:
        """Lines to be copied into a terminal."""
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
        """Names with what they are, in words."""
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>\n" for name, said in summary.items())
        self._blocks.append(f"<dl>{rows}</dl>")

    def cards(self, cards: Sequence[Card]) -> None:
        """Side by side where the window is wide enough, in rows of two or three."""
        wide = "24rem" if len(cards) in (2, 4) else "19rem"
        self._blocks.append(f'<div class="cards" style="--card: {wide}">{"".join(_card(card) for card in cards)}</div>')

    def figure(self, figure: "Figure", *, alt: str, caption: str) -> None:
        """A drawing, as part of the page. alt: what it shows, for those who cannot see it."""
        self._num_figures += 1
        self._framed(inline_svg(figure, f"figure{self._num_figures}", alt=alt), caption)

    def pixels(self, image: Tensor, *, alt: str, caption: str) -> None:
        """A picture, uint8 (3, H, W), shown over the full width with its pixels visible."""
        self._framed(_img(image, alt), caption)

    def pixels_beside(self, pictures: Sequence[tuple[Tensor, str]]) -> None:
        """Pictures with their captions, which describe them, side by side where the window is wide enough."""
        self._blocks.append('<div class="beside">')
        for image, caption in pictures:
            self._framed(_img(image, caption), caption)
        self._blocks.append("</div>")

    def data(self, name: str, value: Any) -> None:
        """Numbers for programs, unseen: JSON in a <script type="application/json" id="name">, which no browser runs."""
        text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")      # no "</script>" within
        self._blocks.append(f'<script type="application/json" id="{escape(name)}">{text}</script>')

    def html(self) -> str:
        """The page as text."""
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
    """As PNG; as JPEG of full colour resolution where that would be too heavy for a page."""
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
    """Up to its colon a sentence says the thing itself."""
    lead, colon, rest = text.partition(": ")
    return f"<strong>{escape(lead)}{colon}</strong>{escape(rest)}" if colon else escape(text)
