"""`python docs/generate` writes the generated reference pages. `make docs` runs it, a test checks that they are current."""

from functools import partial
from pathlib import Path

from command_pages import commands_page
from python_pages import PACKAGES, python_page
from recipe_pages import recipes_page

REFERENCE = Path(__file__).resolve().parent.parent / "reference"
PAGES = {
    "recipes.md": recipes_page,
    "commands.md": commands_page,
    **{f"python/{package}.md": partial(python_page, package) for package in PACKAGES},
}

if __name__ == "__main__":
    (REFERENCE / "python").mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
