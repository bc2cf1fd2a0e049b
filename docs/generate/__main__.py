"""`python docs/generate` writes the generated reference pages. `make docs` runs it, a test checks that they are current."""

from pathlib import Path

from command_pages import commands_page
from recipe_pages import recipes_page

REFERENCE = Path(__file__).resolve().parent.parent / "reference"
PAGES = {"recipes.md": recipes_page, "commands.md": commands_page}

if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
