"""Hooks of mkdocs: pages whose text lies at the top of the repository, and links for the citations in docstrings."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = {"contributing.md": "CONTRIBUTING.md"}
"""Page -> file."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the file's text into its page: links into docs/ as the page has them, of other links the words only."""
    if page.file.src_uri not in TEXTS:
        return markdown
    text = (ROOT / TEXTS[page.file.src_uri]).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\(((?![a-z]+:|#)[^)]+)\)", lambda link: link[0] if _is_page(link[2]) else link[1], text)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Make links of citations such as released-code.md#esm, which docstrings give as plain text."""
    up = "../" * page.file.src_uri.count("/")

    def linked(found: re.Match[str]) -> str:
        return f'<a href="{up}reference/{found[1]}.html#{found[2]}">{found[0]}</a>'

    return re.sub(r"(?<![\w/.\">])(released-code|spectrum)\.md#([\w-]*\w)", linked, html)


def _is_page(target: str) -> bool:
    return (ROOT / "docs" / target.partition("#")[0]).exists()
