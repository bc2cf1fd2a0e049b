"""A hook of mkdocs: pages whose text lies at the top of the repository."""

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


def _is_page(target: str) -> bool:
    return (ROOT / "docs" / target.partition("#")[0]).exists()
