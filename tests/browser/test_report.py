"""The report of a run in a real Chromium: nothing asked of the network, curves to hover, and no text that runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitnet_train.__main__ import main
from tests.browser.conftest import WATCH
from tests.fixtures.report_runs import HOSTILE, write_facts, write_lines, write_run
from tests.report.test_report import on_disk

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: `pip install axe-playwright-python`")

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
IMAGES = Path(__file__).parents[2] / "docs" / "images"
WRITES = os.environ.get("BITNET_WRITE_PICTURES") == "1"
MOST_BYTES = 200_000
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a run, of a hostile one, and of two compared."""
    folder = tmp_path_factory.mktemp("runs")
    one, two = write_run(folder / "one"), write_run(folder / "two", "optimizer.lr=0.01", factor=0.7)
    write_facts(one, "evaluate", **on_disk())
    hostile = write_run(folder / "hostile <img src=x onerror=window.hacked=4>", text=HOSTILE)
    write_lines(hostile / "metrics.jsonl", [{"step": at, HOSTILE: at, "loss": 1 / at} for at in (1, 2, 3)])
    (hostile / "facts" / "export.json").write_text(json.dumps({"stage": HOSTILE}))
    (hostile / "traceback.txt").write_text(HOSTILE)
    for words in ([one], [hostile], [one, two]):
        assert main(["report", "--quiet", *map(str, words)]) == 0
    return {"run": one / "report.html", "hostile": hostile / "report.html", "two": one / "report_compare.html"}


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Open]:
    """Open a page; what its console, its policy and its requests say is an error at the end."""
    contexts: list[BrowserContext] = []
    said: list[str] = []

    def make(name: str, width: int = 1600, dark: bool = False, **more: Any) -> Page:
        scheme: Any = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme, **more)
        contexts.append(context)
        if more.get("java_script_enabled", True):
            context.add_init_script(path=WATCH)
        page = context.new_page()
        address = pages[name].as_uri()
        page.on("console", lambda line: said.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: None if asked.url == address else said.append(asked.url))
        page.goto(address)
        return page

    yield make
    for context in contexts:
        context.close()
    assert said == []


def problems(page: Page) -> list[str]:
    found = axe.Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]} ({len(each['nodes'])})" for each in found]


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [("run", 360, True), ("run", 1600, False), ("two", 360, False), ("two", 1600, True)],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(visit: Open, name: str, width: int, dark: bool) -> None:
    page = visit(name, width, dark)
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert problems(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate("() => window.watched.violations") == []


def test_curves_tell_the_values_of_a_step_zoom_and_hide(visit: Open) -> None:
    page = visit("run")
    figures = page.locator("figure.plot")
    assert figures.locator("canvas").count() == figures.count() > 5
    assert page.locator("figure.plot svg").count() == 0
    plot = page.locator("figure.plot", has_text="Held-out perplexity")
    over, key = plot.locator(".u-over"), plot.locator("button.key")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 40)
    rows = [row for row in _logged(page) if "val_perplexity" in row]
    assert plot.locator("output.step").inner_text() == "step 60"
    assert float(key.locator("output").inner_text()) == pytest.approx(rows[-1]["val_perplexity"], rel=1e-3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.up()
    reset = plot.locator("button.reset")
    assert reset.is_visible()
    reset.click()
    assert not reset.is_visible()
    key.focus()
    page.keyboard.press("Enter")
    assert key.get_attribute("aria-pressed") == "false"


def _logged(page: Page) -> list[dict[str, Any]]:
    path = Path(page.url.removeprefix("file://")).with_name("metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_without_a_script_the_curves_are_drawn_all_the_same(visit: Open) -> None:
    page = visit("run", java_script_enabled=False)
    assert page.locator("figure.plot svg path").count() > 5
    assert page.locator("canvas").count() == 0


def test_no_text_of_a_run_runs(visit: Open) -> None:
    page = visit("hostile")
    assert page.locator("figure.plot canvas").count() > 0
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("() => window.hacked ?? 'no'") == "no"
    assert page.evaluate("() => document.querySelectorAll('main img, main script:not([type])').length") == 0
    assert page.evaluate("() => window.watched.violations") == []
    assert "window.hacked=1" in page.locator("main").inner_text()


@pytest.mark.skipif(not WRITES, reason="pictures are written with BITNET_WRITE_PICTURES=1")
@pytest.mark.timeout(900)
def test_picture_of_a_real_run(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, picture = Path("runs/quickstart"), tmp_path / "report_light.png"
    looks = ("debug.every_steps=8", "debug.enabled=true", "trainer.validate_every_steps=4", "trainer.samples=4")
    short = ("debug=tiny", "trainer.max_steps=32", "trainer.micro_rows=2", "logger=none")
    assert main(["run", "quickstart", "--quiet", "model.source=tiny", *short, *looks, f"run.dir={run}"]) == 0
    page = browser.new_page(viewport={"width": 1280, "height": 1500}, color_scheme="light")
    page.goto((run / "report.html").absolute().as_uri())
    page.screenshot(path=picture)
    page.close()
    image = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
    image.quantize(128, dither=0).save(picture, optimize=True)
    assert picture.stat().st_size < MOST_BYTES
    shutil.copy(picture, IMAGES / picture.name)
