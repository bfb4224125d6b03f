"""The page for everyone: keyboard alone, screen readers, small screens, contrast in light and dark, no jumps."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.browser.conftest import WAIT_MS, Watched
from tests.browser.test_playground import CELLS, cell, measured, open_tiny

api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: `pip install axe-playwright-python`")
expect = api.expect
expect.set_options(timeout=WAIT_MS)

Visit = Callable[..., Watched]
MOST_SHIFT = 0.1  # "good" by web.dev's scale, https://web.dev/articles/cls
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
FOCUSED = """() => {
  const node = document.activeElement;
  const ring = node.closest(".brush") ?? node;
  const style = getComputedStyle(ring);
  const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return { ring: isSeen, what: node.outerHTML.slice(0, 120) };
}"""

CLIPPED = """() => {
  const clips = (node) => {
    const { overflowX, display } = getComputedStyle(node);
    return !["hidden", "auto"].includes(overflowX) && display !== "inline" && node.scrollWidth > node.clientWidth + 1;
  };
  const all = document.querySelectorAll("main button, main label, main select, main h2, main .figure, .bar > *");
  return [...all].filter((node) => node.checkVisibility() && node.clientWidth > 0 && clips(node))
    .map((node) => node.outerHTML.slice(0, 120));
}"""
SMALL = """() => {
  const isSmall = ({ width, height }) => width < 24 || height < 24;
  const targets = "button, select, summary, .brush, #grid .cell, .card label, .check, .rail a";
  return [...document.querySelectorAll(targets)]
    .filter((node) => node.checkVisibility() && isSmall(node.getBoundingClientRect()))
    .map((node) => node.outerHTML.slice(0, 100));
}"""


def tab_to(page: api.Page, selector: str, key: str = "Tab", most: int = 90) -> None:
    """Press Tab until the focus is there; everything on the way must show that it has it."""
    seen = []
    for _ in range(most):
        page.keyboard.press(key)
        found = page.evaluate(FOCUSED)
        seen.append(found["what"])
        if found["what"].startswith("<body"):  # past the end; the next one is the first
            continue
        assert found["ring"], f"no visible focus: {found['what']}"
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} is not reached: {seen}")


def problems(page: api.Page) -> list[str]:
    found = axe.Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]} ({len(each['nodes'])})" for each in found]


def full(watched: Watched) -> api.Page:
    """The page with something in every section."""
    page = open_tiny(watched)
    page.click(cell("block 0 q"))
    page.click(cell("block 3 down"))
    page.fill("#prompt", "import os\n")
    page.fill("#new-tokens", "8")
    page.click("#go-on")
    expect(page.locator("#parting")).not_to_have_text("")
    measured(page)
    page.click("#table-details summary")
    return page


def test_the_main_way_is_walked_with_the_keyboard_alone(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.evaluate("() => document.activeElement.blur()")
    tab_to(page, ".skip")
    page.keyboard.press("Enter")
    tab_to(page, "#models input")
    tab_to(page, "#brushes input")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="−1, 0, +1")).to_be_checked()
    tab_to(page, "#grid [tabindex='0']")
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')").startswith("block 0 q")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(cell("block 1 k"))).to_have_attribute("aria-label", re.compile("−1, 0, \\+1"))
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')").startswith("block 1 k")
    page.keyboard.press("4")
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    expect(page.locator("#sizes")).to_contain_text("4 of 30 layers swapped")
    expect(page.locator(cell("block 3 k"))).to_have_attribute("aria-label", re.compile("2 planes"))
    page.keyboard.press("Control+z")
    expect(page.locator("#sizes")).to_contain_text("1 of 30 layers swapped")
    tab_to(page, "#outside button")
    tab_to(page, "#measure")
    measured(page)
    tab_to(page, "#prompt")
    tab_to(page, "#new-tokens")
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(page.locator("#about-swapped")).to_have_text("3 tokens")
    tab_to(page, "#bench")
    tab_to(page, "#recipe-name")
    tab_to(page, ".job-list summary, .job-list button")
    tab_to(page, "#bench", key="Shift+Tab")
    watched.assert_clean()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_axe_finds_nothing(visit: Visit, width: int, dark: bool) -> None:
    watched = visit(width, dark=dark, reduced_motion="reduce")
    empty = watched.open()
    expect(empty.locator("#foot")).to_contain_text("bitnet_train")
    assert problems(empty) == []
    page = full(watched)
    assert problems(page) == []
    watched.assert_clean()


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1600])
def test_nothing_is_wider_than_the_screen(visit: Visit, width: int) -> None:
    page = full(visit(width))
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    clipped = page.evaluate(CLIPPED)
    assert clipped == []


@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_jumps_while_a_choice_is_measured_and_both_continue(visit: Visit, width: int) -> None:
    watched = visit(width)
    full(watched)
    assert watched.shift() < MOST_SHIFT, watched.page.evaluate("() => window.watched.shifts")


def test_targets_are_large_enough_for_a_finger(visit: Visit) -> None:
    page = full(visit(360, has_touch=True))
    small = page.evaluate(SMALL)
    assert small == []


def test_the_picture_lies_along_the_blocks_where_there_is_room_and_down_them_where_not(visit: Visit) -> None:
    page = open_tiny(visit(1600))
    assert page.locator("#grid").evaluate("node => node.classList.contains('lying')")
    assert page.locator("#grid [role=row]").count() == 8
    assert page.locator(CELLS).first.get_attribute("aria-label").startswith("block 0 q")  # type: ignore[union-attr]


def test_the_theme_is_switched_and_kept(visit: Visit) -> None:
    page = visit(dark=True).open()
    colour = "() => getComputedStyle(document.body).backgroundColor"
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    dark = page.evaluate(colour)
    page.click("#theme")
    expect(page.locator("#theme")).to_have_text("Theme: light")
    light = page.evaluate(colour)
    assert light != dark
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: light")
    assert page.evaluate(colour) == light


def test_less_motion_is_no_motion(visit: Visit) -> None:
    page = visit(reduced_motion="reduce").open()
    assert page.evaluate("() => getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_progress_and_ends_are_said_aloud(visit: Visit) -> None:
    page = open_tiny(visit())
    page.fill("#new-tokens", "2")
    page.click("#go-on")
    expect(page.locator("#announcements[role=status]")).to_contain_text(re.compile("Both have continued|Both continue"))
