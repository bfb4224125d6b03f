"""The documentation site builds without a warning, fetches nothing, and every link and anchor in it leads somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import bitnet_train
from bitnet_train.config.layout import recipes
from bitnet_train.config.suggest import known_keys
from bitnet_train.verbs import VERBS
from scripts.site.links import LINK, relinked
from scripts.site.notebook import as_markdown

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / f"{name}.md" for name in ("README", "SECURITY", "CONTRIBUTING", "CHANGELOG", "recipes/README")]
WRITTEN += sorted((ROOT / "docs").rglob("*.md"))
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src"}  # and <link> but for its canonical address


@dataclass
class Page(HTMLParser):
    """What a page links to, loads and can be linked at."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given.get("href", ""))
        if tag in LOADS and LOADS[tag] in given:
            self.loads.append(given[LOADS[tag]])

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built as CI builds it, with the network switched off where it can be."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | dead | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Return every page of the site, parsed."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        found[path] = page = Page()
        page.feed(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    lost = [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        if path.name != "404.html"  # its addresses begin at the root of the server
        for link in (*page.links, *page.loads)
        if not leads_somewhere(link, path, pages)
    ]
    assert lost == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def leads_somewhere(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    """Whether a link of a page is another address's business, or a file of the site that has the anchor."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    is_anchor = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
    return target.is_file() and (is_anchor or parts.fragment.startswith("__"))


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert {load for page in pages.values() for load in page.loads if urlsplit(load).netloc} == set()


@pytest.mark.slow
def test_references_hold_every_key_verb_recipe_and_public_name(site: Path, pages: dict[Path, Page]) -> None:
    configuration, commands, files, python = (
        pages[site / name / "index.html"] for name in ("configuration", "commands", "recipe-files", "api")
    )
    assert set(known_keys()) <= configuration.anchors
    assert set(VERBS) <= commands.anchors
    assert all(name in files.text for name in recipes())
    assert {f"bitnet_train.{name}" for name in bitnet_train.__all__ if not name.startswith("_")} <= python.anchors


@pytest.mark.slow
def test_the_search_index_finds_what_newcomers_ask(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    titles = {entry["title"]: entry["location"] for entry in index["docs"]}
    assert titles["By memory"] == "choose/#by-memory"
    assert titles["Questions in a CSV"] == "data/#questions-in-a-csv"
    assert any(title.startswith("Why a ratio of") for title in titles)
    assert any(title == "Ollama" for title in titles)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_of_the_repository_lead_to_files(page: Path) -> None:
    links = [found[1] for found in LINK.finditer(page.read_text(encoding="utf-8"))]
    made = {"configuration.md", "commands.md", "api.md", "recipe-files.md", "measured.md", "security.md"}
    assert [link for link in links if link not in made and not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("README.md", "docs/data.md#rows", "data.md#rows"),
        ("README.md", "recipes/baselines/onebit.yaml", "recipe-files.md#baselines-onebit"),
        ("recipes/README.md", "quickstart.yaml", "recipe-files.md#quickstart"),
        ("docs/choose.md", "../recipes/README.md#recipes", "measured.md#recipes"),
        ("docs/fuzz.md", "../SECURITY.md", "security.md"),
        ("docs/notebooks/look.md", "../data.md", "../data.md"),
        ("docs/how.md", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(page: str, link: str, becomes: str) -> None:
    assert relinked(f"see [it]({link}).", page) == f"see [it]({becomes})."
    assert relinked(f"```\n[it]({link})\n```", page) == f"```\n[it]({link})\n```"


def test_a_lost_link_and_anchor_are_seen(tmp_path: Path) -> None:
    page = Page()
    page.feed('<a href="b/#there">x</a><h1 id="here">t</h1><script src="https://example.org/x.js"></script>')
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").touch()
    (tmp_path / "a.html").touch()
    pages = {tmp_path / "a.html": page, tmp_path / "b" / "index.html": Page()}
    assert not leads_somewhere("b/#there", tmp_path / "a.html", pages)
    assert not leads_somewhere("c/", tmp_path / "a.html", pages)
    assert leads_somewhere("b/", tmp_path / "a.html", pages)
    assert leads_somewhere("#here", tmp_path / "a.html", pages)
    assert page.loads == ["https://example.org/x.js"]
    assert re.search("here", str(page.anchors))


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Look\n", "inside"]},
        {
            "cell_type": "code",
            "source": "print('``` is kept')",
            "outputs": [{"name": "stdout", "text": ["``` is kept\n"]}],
        },
        {"cell_type": "code", "source": "", "outputs": []},
        {
            "cell_type": "code",
            "source": "draw()",
            "outputs": [{"data": {"image/png": "iVBORw0=\n", "text/plain": "<>"}}],
        },
    ]
    (tmp_path / "look.ipynb").write_text(json.dumps({"cells": cells}))
    page = as_markdown(tmp_path / "look.ipynb")
    assert page.startswith(
        "# Look\ninside\n\n````python\nprint('``` is kept')\n````\n\n````text\n``` is kept\n````\n\n"
    )
    assert page.endswith('src="data:image/png;base64,iVBORw0=">\n')
    assert page.count("````python") == 2
