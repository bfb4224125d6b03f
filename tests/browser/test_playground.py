"""The whole story of the playground in a real browser, on the bundled model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import WAIT_MS, Server, Watched
from tests.fixtures.tiny_gguf import TINY, write_tiny_gguf

api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")
expect = api.expect
expect.set_options(timeout=WAIT_MS)

Visit = Callable[..., Watched]
CELLS = "#grid [role=gridcell]"


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny-bf16.gguf")


def cell(name: str) -> str:
    return f'{CELLS}[aria-label^="{name}:"]'


def open_tiny(watched: Watched, source: str = "tiny") -> api.Page:
    """Open the page with the bundled model: loaded by the first test that asks, there for the rest."""
    page = watched.open()
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    if not page.locator("#models .card").count():
        page.fill("#source", source)
        page.press("#source", "Enter")
    expect(page.locator(CELLS)).to_have_count(28)
    return page


def measured(page: api.Page) -> None:
    expect(page.locator("#cost-state")).to_contain_text(re.compile("^(Measured on|The original, on)"))
    expect(page.locator("#figures")).not_to_have_class(re.compile("stale"))


def figure(page: api.Page, name: str) -> str:
    return page.locator(".figure", has_text=name).locator("b").inner_text()


def test_the_token_leaves_the_address_and_stays_in_the_tab(visit: Visit, server: Server) -> None:
    watched = visit()
    page = watched.open()
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    assert page.url == server.root
    page.reload()
    expect(page.locator("#machine")).to_contain_text("threads")
    assert page.locator("#door").is_hidden()
    watched.assert_clean()


def test_without_a_token_there_is_a_door_that_takes_the_address(visit: Visit, server: Server) -> None:
    page = visit().open(server.root)
    expect(page.locator("#door")).to_be_visible()
    assert page.locator("#model").is_hidden()
    page.fill("#door-token", "wrong")
    page.press("#door-token", "Enter")
    expect(page.locator("#door-problem")).to_be_visible()
    page.fill("#door-token", server.address)
    page.press("#door-token", "Enter")
    expect(page.locator("#model")).to_be_visible()
    expect(page.locator("#door")).to_be_hidden()


def test_an_uploaded_gguf_is_painted_and_measured(visit: Visit, tiny_gguf: Path) -> None:
    watched = visit(1600, 1000)
    page = watched.open()
    page.set_input_files("#file", tiny_gguf)
    expect(page.locator("#models .card.ready", has_text="tiny-bf16.gguf")).to_be_visible()
    page.locator("#models .card", has_text="tiny-bf16.gguf").locator("input").check()
    expect(page.locator(CELLS)).to_have_count(28)
    expect(page.locator("#sizes")).to_contain_text("8.92 MB")
    measured(page)
    page.click(cell("block 1 gate"))
    expect(page.locator(cell("block 1 gate"))).to_have_attribute("aria-label", re.compile("±1"))
    expect(page.locator("#sizes")).to_contain_text("1 of 30 layers swapped")
    measured(page)
    assert float(figure(page, "KL")) > 0
    page.locator("#models .card", has_text="tiny-bf16.gguf").get_by_role("button", name="Close").click()
    expect(page.locator("#models .card", has_text="tiny-bf16.gguf")).to_have_count(0)
    watched.assert_clean()


def test_a_folder_is_uploaded_file_by_file(visit: Visit) -> None:
    watched = visit()
    page = watched.open()
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    page.set_input_files("#folder", TINY)
    expect(page.locator("#models .card.ready", has_text="tiny")).to_be_visible()
    page.locator("#models .card").first.get_by_role("button", name="Close").click()
    expect(page.locator("#models-empty")).to_be_visible()
    watched.assert_clean()


def test_schemes_are_painted_by_cell_role_block_and_row_of_the_table_and_taken_back(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.uncheck("#live")
    swapped = page.locator("#sizes")
    page.click(cell("block 0 q"))
    expect(swapped).to_contain_text("1 of 30")
    page.get_by_role("radio", name="−1, 0, +1").check()
    page.click('#grid [aria-label="role down"]')
    expect(swapped).to_contain_text("5 of 30")
    page.get_by_role("radio", name="3 planes").check()
    page.click('#grid [aria-label="block 2"]')
    expect(swapped).to_contain_text("11 of 30")
    expect(page.locator(cell("block 2 down"))).to_have_attribute("aria-label", re.compile("3 planes"))
    page.click("#table-details summary")
    page.fill("#filter", "block 3 up")
    expect(page.locator("#filter-count")).to_have_text("1 of 30 layers")
    page.select_option("#layer-table tbody select", label="4 planes")
    expect(swapped).to_contain_text("12 of 30")
    page.select_option("#paint-found", label="float")
    expect(swapped).to_contain_text("11 of 30")
    for number in ("12", "11", "5", "1", "0"):
        page.click("#undo")
        expect(swapped).to_contain_text(f"{number} of 30")
    page.click("#redo")
    expect(swapped).to_contain_text("1 of 30")
    page.click('#grid [aria-label="every block and role"]')
    expect(swapped).to_contain_text("28 of 30")
    page.click("#clear")
    expect(swapped).to_contain_text("0 of 30")
    watched.assert_clean()


def test_bearing_colours_every_layer_and_offers_the_share_that_bears_it_best(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    expect(page.locator("#share-range")).to_be_disabled()
    page.uncheck("#live")
    page.click("#bear")
    expect(page.locator("#grid .cell[class*=heat-]").first).to_be_visible()
    expect(page.locator("#grid .cell.unknown")).to_have_count(0)
    expect(page.locator("#bear")).to_have_text("Measure again")
    shades = {node.get_attribute("class") for node in page.locator("#grid .cell").all()}
    assert {"cell heat-0", "cell heat-5"} & shades, shades
    page.locator("#share-range").fill("50")
    expect(page.locator("#share-out")).to_have_text("50 %")
    expect(page.locator("#sizes")).to_contain_text(re.compile(r"1\d of 30"))
    page.click("#undo")
    expect(page.locator("#sizes")).to_contain_text("0 of 30")
    watched.assert_clean()


def test_figures_follow_the_choice_and_a_text_of_ones_own(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    measured(page)
    page.click('#grid [aria-label="role down"]')
    measured(page)
    before = figure(page, "Perplexity")
    page.get_by_role("radio", name="4 planes").check()
    page.click('#grid [aria-label="role down"]')
    expect(page.locator(".figure", has_text="Perplexity").locator("b")).not_to_have_text(before)
    measured(page)
    assert float(figure(page, "Perplexity").replace(",", "")) < float(before.replace(",", ""))
    expect(page.locator("#tries-chart .dot")).to_have_count(3)
    page.click("#tries-table summary")
    page.locator("#tries-table button").nth(1).click()
    expect(page.locator(cell("block 0 down"))).to_have_attribute("aria-label", re.compile("±1"))
    page.fill("#own-text", "def add(a, b):\n    return a + b\n" * 12)
    expect(page.locator("#cost-state")).to_contain_text("of your text")
    watched.assert_clean()
    page.fill("#own-text", "a " * 100_001)
    expect(page.locator("#cost-problem")).to_contain_text("`text`")


def test_both_continue_side_by_side_and_their_parting_is_marked(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.uncheck("#live")
    page.click('#grid [aria-label="every block and role"]')
    page.fill("#prompt", "import os\nimport sys\n")
    page.fill("#new-tokens", "12")
    page.click("#go-on")
    expect(page.locator("#parting")).to_contain_text("They part at token")
    expect(page.locator("#go-on")).to_be_visible()
    for side in ("original", "swapped"):
        expect(page.locator(f"#text-{side} mark.parts")).to_have_count(1)
        expect(page.locator(f"#text-{side} mark.parts .unseen")).to_have_text("here they part:")
    assert page.locator(".differs").first.evaluate("node => getComputedStyle(node).textDecorationLine") == "underline"
    written = page.locator("#text-original").inner_text()
    page.reload()
    expect(page.locator("#text-original")).to_have_text(written, use_inner_text=True)
    watched.assert_clean()


def test_an_unchanged_model_says_the_same_token_for_token(visit: Visit) -> None:
    page = open_tiny(visit())
    page.check("#chat")
    page.fill("#system", "Write Python.")
    page.fill("#prompt", "A function that adds.")
    page.fill("#new-tokens", "6")
    page.click("#go-on")
    expect(page.locator("#parting")).to_contain_text("the same, token for token")
    assert page.locator("#text-swapped mark").count() == 0


def test_the_benchmark_has_a_row_for_each_way_to_decode(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.uncheck("#live")
    page.click('#grid [aria-label="every block and role"]')
    page.click("#bench")
    rows = page.locator("#bench-rows tbody tr")
    expect(rows.nth(1)).to_contain_text("28 layers swapped")
    expect(page.locator("#bench")).to_have_text("Measure the speed")
    for row in rows.all()[:2]:
        assert float(row.locator(".bar-value").first.inner_text().replace(",", "")) > 0
    watched.assert_clean()


def test_a_choice_becomes_a_recipe_and_a_run_with_a_curve_that_stands_among_the_runs(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.uncheck("#live")
    page.click('#grid [aria-label="role gate"]')
    page.fill("#recipe-name", "gates")
    page.click("#recipe-save")
    expect(page.locator("#yaml-text")).to_contain_text("gate_proj")
    expect(page.locator("#run-recipe")).to_have_value("gates")
    with page.expect_download() as download:
        page.click("#yaml-download")
    assert download.value.suggested_filename == "gates.yaml"
    page.fill("#run-overrides", "debug=tiny trainer.max_steps=6")
    page.click("#run-start")
    expect(page.locator("#live-run h3")).to_contain_text("gates")
    page.reload()
    expect(page.locator("#live-run .curve")).to_be_visible(timeout=2 * WAIT_MS)
    expect(page.locator("#live-run")).to_contain_text("Done.", timeout=2 * WAIT_MS)
    expect(page.locator("#run-list .run")).to_have_count(1)
    expect(page.locator("#runs-chart .curve")).to_be_visible()
    expect(page.locator("#runs-differences table").first).to_be_visible()
    watched.assert_clean()


def test_a_job_survives_a_reload_and_is_cancelled(visit: Visit) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.uncheck("#live")
    page.fill("#new-tokens", "400")
    page.click("#go-on")
    expect(page.locator("#text-original")).not_to_have_text("…")
    page.reload()
    running = page.locator("#job-list > li[data-status=running]", has_text="Both continue")
    expect(running).to_have_count(1)
    expect(page.locator("#jobs-pill")).to_contain_text("1 running")
    running.get_by_role("button", name=re.compile("Cancel")).click()
    expect(running).to_have_count(0)
    expect(page.locator("#parting")).to_contain_text(re.compile("Stopped|They part"))
    expect(page.locator("#go-on")).to_be_visible()
    watched.assert_clean()
