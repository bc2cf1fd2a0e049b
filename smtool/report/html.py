"""One self-contained page: text, tables, commands and pictures in a single file that asks no other address for anything."""

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image
from torch import Tensor

from smtool.report.tables import Table
from smtool.storage import write_text

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #ddd; }
p { max-width: 46rem; margin: .6rem 0; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; }
figure img.pixels { image-rendering: pixelated; width: 100%; }
figcaption, .note { color: #555; font-size: .875rem; max-width: 46rem; }
.note { white-space: pre-line; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0 .3rem; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid #999; font-weight: 600; }
td { border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f5f5f3; padding: .8rem 1rem; overflow-x: auto; font-size: .875rem; line-height: 1.5; border-radius: 4px; }
"""

# The browser itself refuses whatever is not in the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page:
    """Collects blocks from top to bottom. All text given to it is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._blocks = [f"<h1>{escape(title)}</h1>"]

    def section(self, title: str) -> None:
        self._blocks.append(f"<h2>{escape(title)}</h2>")

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

    def figure(self, svg: bytes, *, alt: str, caption: str) -> None:
        """A drawing, as SVG. alt: what it shows, for those who cannot see it."""
        self._picture(_data_uri(svg, "image/svg+xml"), alt, caption, "")

    def pixels(self, image: Tensor, *, alt: str, caption: str) -> None:
        """A picture, uint8 (3, H, W), shown over the full width with its pixels visible."""
        png = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(png, "PNG", optimize=True)
        self._picture(_data_uri(png.getvalue(), "image/png"), alt, caption, ' class="pixels"')

    def html(self) -> str:
        """The page as text."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            + "\n".join(self._blocks) + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        write_text(path, self.html())

    def _picture(self, uri: str, alt: str, caption: str, attributes: str) -> None:
        below = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._blocks.append(f'<figure><img src="{uri}" alt="{escape(alt)}"{attributes}>{below}</figure>')


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
