"""MkDocs' hook: adds the pages that are made, brings in parts of README, and turns links of files into links of pages.

    mkdocs build --strict      # or `mkdocs serve`, from the root of the repository

A page that is made does not lie in `docs/`: it cannot go stale. `<!-- from README.md: HEADING -->` on a page becomes
what stands under that heading, with `; up to NAME` before its block of figures of that name. Pictures of `pictures/`
stand inline, so that they take the colours of the page. A notebook, `docs/notebooks/NAME.ipynb`, has a page NAME.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # MkDocs runs this file by its path

from mkdocs.structure.files import File, Files  # noqa: E402

from scripts.site import reference  # noqa: E402
from scripts.site.links import FROM_OUTSIDE, RECIPES, relinked  # noqa: E402
from scripts.site.notebook import as_markdown  # noqa: E402

MADE = {
    "configuration.md": reference.configuration,
    "commands.md": reference.commands,
    "api.md": reference.python_names,
    RECIPES: reference.recipe_files,
}
OF_GUIDES = 0.5  # weight of other pages in a search
_PART = re.compile(r"^<!-- from README\.md: (.+?)(?:; up to (\w+))? -->$", re.MULTILINE)
_PICTURE = re.compile(r"^!\[(.+)\]\((pictures/\w+\.svg)\)$", re.MULTILINE)
_MARKER = re.compile(r"^<!-- /?\w+(: written by [\w/.]+)? -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages, and those of files outside `docs/`; README has its own, `docs/index.md`."""
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    for file, page in FROM_OUTSIDE.items():
        if page != "index.md":
            text = relinked((ROOT / file).read_text(encoding="utf-8"), file)
            files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        text = relinked(as_markdown(path), path.relative_to(ROOT).as_posix())
        page = path.relative_to(ROOT / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page with parts of README in place, and links of the site."""
    name = page.file.src_uri
    if page.file.generated_by is not None:  # a reference, or a file from outside: a search shows guides first
        page.meta["search"] = {"boost": OF_GUIDES}
    if name in MADE:
        return markdown
    if page.file.generated_by is None:
        markdown = relinked(_PART.sub(lambda found: readme_part(found[1], found[2]), markdown), f"docs/{name}")
    return _PICTURE.sub(_inline, _MARKER.sub("", markdown))


def _inline(found: re.Match[str]) -> str:
    svg = (ROOT / "docs" / found[2]).read_text(encoding="utf-8").strip()
    return svg.replace("<svg ", f'<svg role="img" aria-label="{found[1]}" ', 1)


def readme_part(heading: str, before: str | None = None) -> str:
    """Return what stands under a heading of README, with links as from `docs/`; KeyError where there is none.

    before: the name of the block of figures that it ends at. A link that shows a page's path shows its title instead.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^##? (.+)\n", text, flags=re.MULTILINE)
    part = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    part = part if before is None else part.partition(f"<!-- {before}:")[0]
    titled = re.sub(r"\[(docs/\w+\.md)\]", lambda found: f"[{_title(ROOT / found[1])}]", part)
    return relinked(titled.strip("\n"), "README.md")


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
