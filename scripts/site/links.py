"""Links of a page as the repository has them, turned into links of the site.

A page of the repository links files: `docs/data.md`, `../SECURITY.md`, `recipes/quickstart.yaml`. All pages of the site
lie in one folder, those from outside `docs/` under another name, and recipes on one page with an anchor each.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

# file of the repository -> page of the site
FROM_OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "README.md": "index.md",
        "recipes/README.md": "measured.md",
        "SECURITY.md": "security.md",
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
    }
)
RECIPES = "recipe-files.md"
LINK = re.compile(r"(?<=\])\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^\s*(```|~~~)")


def anchor(recipe: str) -> str:
    """Return the anchor of a recipe, or of a grid of runs, by its path below `recipes/` without `.yaml`."""
    return recipe.replace("/", "-").replace("_", "-")


def relinked(text: str, page: str) -> str:
    """Return the text of a page (its path in the repository) with its links turned into links of the site.

    What lies neither in `docs/` nor on a page of the site stays as it is, and MkDocs warns of it.
    """
    lines, in_code = [], False
    for line in text.split("\n"):
        in_code ^= bool(_FENCE.match(line))
        lines.append(line if in_code else LINK.sub(lambda found: f"({_target(page, *found.groups(''))})", line))
    return "\n".join(lines)


def _target(page: str, link: str, part: str) -> str:
    file = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    home = posixpath.dirname(page).removeprefix("docs").lstrip("/") if page.startswith("docs/") else ""
    if file in FROM_OUTSIDE:
        return posixpath.relpath(FROM_OUTSIDE[file], home or ".") + part
    if file.startswith("recipes/") and file.endswith(".yaml"):
        recipe = PurePosixPath(file).relative_to("recipes").with_suffix("").as_posix()
        return f"{posixpath.relpath(RECIPES, home or '.')}#{anchor(recipe)}"
    if file.startswith("docs/"):
        return posixpath.relpath(file.removeprefix("docs/"), home or ".") + part
    return link + part
