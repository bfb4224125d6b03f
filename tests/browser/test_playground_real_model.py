"""The story once more with a published model: 98 MB of GGUF by way of the browser, 30 blocks, a real tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import WAIT_MS, Watched
from tests.browser.test_playground import CELLS, figure, measured

api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")
expect = api.expect
SLOWLY = 4 * WAIT_MS
expect.set_options(timeout=SLOWLY)
MODEL = os.environ.get("BITNET_TEST_SMOLLM2")


@pytest.mark.real_model
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not MODEL, reason="needs the GGUF file that BITNET_TEST_SMOLLM2 names")
def test_smollm2_is_uploaded_swapped_continued_and_benchmarked(visit: Callable[..., Watched]) -> None:
    assert MODEL
    name = Path(MODEL).name
    watched = visit(1600, 1000)
    page = watched.open()
    page.set_default_timeout(SLOWLY)
    page.set_input_files("#file", MODEL)
    expect(page.locator("#models .card.ready", has_text=name)).to_be_visible()
    expect(page.locator(CELLS)).to_have_count(7 * 30)
    measured(page)
    page.click('#grid [aria-label="role v"]')
    expect(page.locator("#sizes")).to_contain_text("30 of 212 layers swapped")
    measured(page)
    assert float(figure(page, "Perplexity").replace(",", "")) > 0
    page.fill("#prompt", "What is the capital of France?")
    page.check("#chat")
    page.fill("#new-tokens", "8")
    page.click("#go-on")
    expect(page.locator("#text-original")).to_contain_text("Paris")
    expect(page.locator("#go-on")).to_be_visible()
    page.click("#bear")
    expect(page.locator("#bear-progress")).to_contain_text(re.compile(r"[1-9]\d* of \d+"))
    page.click("#bear")
    expect(page.locator("#job-list > li", has_text="How each layer").first).to_have_attribute(
        "data-status", "cancelled"
    )
    page.click("#bench")
    expect(page.locator("#bench-rows tbody tr").nth(1)).to_contain_text("30 layers swapped")
    expect(page.locator("#bench")).to_have_text("Measure the speed")
    page.get_by_role("button", name=f"Close {name}").click()
    expect(page.locator("#models-empty")).to_be_visible()
    watched.assert_clean()


@pytest.mark.real_model
@pytest.mark.skipif(not MODEL, reason="needs the GGUF file that BITNET_TEST_SMOLLM2 names")
def test_an_upload_is_shown_as_it_goes_and_cancelled(visit: Callable[..., Watched]) -> None:
    watched = visit()
    page = watched.open()
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    page.context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4_000_000},
    )
    page.set_input_files("#file", MODEL)
    expect(page.locator("#models progress")).to_have_attribute("max", re.compile(r"\d{8}"))
    expect(page.locator("#models small")).to_contain_text("of 98.4 MB")
    page.get_by_role("button", name=re.compile("Cancel the upload")).click()
    expect(page.locator("#models-empty")).to_be_visible()
    expect(page.locator("#announcements")).to_have_text("The upload was cancelled.")
    assert page.locator("#model-problem").is_hidden()
