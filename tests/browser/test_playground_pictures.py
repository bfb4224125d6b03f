"""Pictures of the page for docs/playground.md. Tests write nothing into the tree: BITNET_WRITE_PICTURES=1 does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import WAIT_MS, Watched
from tests.browser.test_playground import cell, measured, open_tiny

api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")
expect = api.expect
expect.set_options(timeout=WAIT_MS)

Visit = Callable[..., Watched]
WRITES = os.environ.get("BITNET_WRITE_PICTURES") == "1"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 200_000
SHOTS = [(1600, 1240, False), (1600, 1240, True), (360, 1700, False), (360, 1700, True)]
PARTS = ("layers", "cost", "continue")
IN_PARTS = ((1600, False), (360, True))
A_RUN_MS = 900_000  # on a machine that does other things too


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[Path], None]:
    """Make a picture small, and put it where it belongs."""

    def put(picture: Path) -> None:
        image = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
        image.quantize(224, dither=0).save(picture, optimize=True)
        assert picture.stat().st_size < MOST_BYTES
        IMAGES.mkdir(exist_ok=True)
        shutil.copy(picture, IMAGES / picture.name)

    return put


def prepare(watched: Watched) -> api.Page:
    """A choice that is worth a look, measured on, continued, benchmarked."""
    page = open_tiny(watched)
    if page.locator("#grid .unknown").count():
        page.click("#bear")
        expect(page.locator("#bear")).to_have_text("Measure again")
    measured(page)
    for share in ("80", "55", "25"):
        page.locator("#share-range").fill(share)
        measured(page)
    page.get_by_role("radio", name="4 planes").check()
    page.click('#grid [aria-label="block 0"]')
    measured(page)
    page.get_by_role("radio", name="2 planes").check()
    page.click(cell("block 3 v"))
    page.click(cell("block 2 o"))
    measured(page)
    page.fill("#prompt", "import os\nimport sys\n\n\nclass Reader:\n    def __init__(self, path):\n")
    page.fill("#new-tokens", "60")
    page.click("#go-on")
    expect(page.locator("#go-on")).to_be_visible()
    expect(page.locator("#about-swapped")).not_to_have_text("")
    if not page.locator("#bench-rows tbody tr").count():
        page.click("#bench")
        expect(page.locator("#bench-rows tbody tr").nth(1)).to_be_visible()
        expect(page.locator("#bench")).to_have_text("Measure the speed")
    page.evaluate("() => document.activeElement.blur()")
    page.mouse.move(0, 0)
    return page


def two_runs(page: api.Page) -> None:
    """Two short runs, made by the first page that asks, beside one another."""
    for number, words in enumerate(("optimizer.lr=1e-3", "optimizer.lr=3e-4"), 1):
        if page.locator("#run-list .run").count() < number:
            page.select_option("#run-recipe", "quickstart")
            page.fill("#run-overrides", f"debug=tiny trainer.max_steps=24 {words}")
            page.click("#run-start")
            expect(page.locator("#run-list .run")).to_have_count(number, timeout=A_RUN_MS)
            expect(page.locator("#live-run")).to_contain_text("Done.", timeout=A_RUN_MS)
    for box in page.locator("#run-list input").all():
        box.check()
    expect(page.locator("#runs-chart .mark")).to_have_count(2)
    page.evaluate("() => document.activeElement.blur()")


@pytest.mark.skipif(not WRITES, reason="pictures are written with BITNET_WRITE_PICTURES=1")
@pytest.mark.timeout(3600)
def test_pictures_of_the_page(visit: Visit, tmp_path: Path, keep: Callable[[Path], None]) -> None:
    pages = {}
    for width, height, dark in SHOTS:
        pages[width, dark] = page = prepare(visit(width, height, dark=dark, reduced_motion="reduce"))
        name = tmp_path / f"{name_of(width, dark)}.png"
        page.evaluate("() => scrollTo(0, 0)")
        expect(page.locator('.rail [href="#model"]')).to_have_attribute("aria-current", "true")
        page.screenshot(path=name)
        keep(name)
        for part in PARTS if (width, dark) in IN_PARTS else ():
            keep(picture_of(page, part, tmp_path / f"{name_of(width, dark)}_{part}.png"))
    for width, dark in IN_PARTS:
        two_runs(pages[width, dark])
        keep(picture_of(pages[width, dark], "runs", tmp_path / f"{name_of(width, dark)}_runs.png"))


def name_of(width: int, dark: bool) -> str:
    return f"playground_{width}_{'dark' if dark else 'light'}"


def picture_of(page: api.Page, part: str, path: Path) -> Path:
    """A section alone, without the bar that sticks to the top of what is scrolled."""
    page.evaluate("() => scrollTo(0, 0)")
    page.screenshot(path=path, full_page=True, clip=page.locator(f"#{part}").bounding_box())
    return path
