"""What goes wrong is said where it went wrong, and survived: files that are none, crashes, silence, broken streams."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import WAIT_MS, Server, Watched, start
from tests.browser.test_playground import CELLS, open_tiny

api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")
expect = api.expect
expect.set_options(timeout=WAIT_MS)

Visit = Callable[..., Watched]
DROP = """() => {
  const data = new DataTransfer();
  data.items.add(new File(["no such thing"], "wrong.gguf"));
  const how = { dataTransfer: data, bubbles: true, cancelable: true };
  for (const type of ["dragover", "drop"]) document.getElementById("drop").dispatchEvent(new DragEvent(type, how));
}"""

INLINE = """() => {
  const script = document.createElement("script");
  script.textContent = "window.ran = 1";
  document.body.append(script);
}"""


@pytest.mark.parametrize(
    ("content", "said"), [(b"no such thing", "is no GGUF"), (b"GGUF" + b"\xff" * 64, re.compile("GGUF|version|gguf"))]
)
def test_a_file_that_is_no_model_is_refused_in_words(
    visit: Visit, tmp_path: Path, content: bytes, said: object
) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    page = visit().open()
    page.set_input_files("#file", path)
    expect(page.locator("#model-problem, #models .failed small").filter(has_text=said).first).to_be_visible()  # type: ignore[arg-type]
    page.locator("#models").get_by_role("button", name="Close").click() if content.startswith(b"GGUF") else None


def test_a_name_that_is_no_model_is_refused_in_words(visit: Visit) -> None:
    page = visit().open()
    page.fill("#source", "./nowhere<img src=x onerror=alert(1)>")
    page.press("#source", "Enter")
    expect(page.locator("#model-problem")).to_contain_text("nowhere<img")
    assert page.locator("main img").count() == 0


def test_a_wrong_setting_of_a_run_is_said_at_once(visit: Visit) -> None:
    page = visit().open()
    page.select_option("#run-recipe", "quickstart")
    page.fill("#run-overrides", "trainer.max_stepz=3")
    page.click("#run-start")
    expect(page.locator("#run-problem")).to_contain_text("max_stepz")


def test_a_killed_workbench_is_said_and_loaded_again(visit: Visit, server: Server) -> None:
    watched = visit(1600)
    page = open_tiny(watched)
    page.fill("#new-tokens", "400")
    page.click("#go-on")
    expect(page.locator("#text-original")).not_to_have_text("…")
    for pid in server.workbenches():
        os.kill(pid, signal.SIGKILL)
    expect(page.locator("#layers-gone")).to_contain_text("SIGKILL")
    expect(page.locator("#continue-problem")).to_contain_text("SIGKILL")
    page.click("#reload")
    expect(page.locator(CELLS)).to_have_count(28)
    expect(page.locator("#layers-gone")).to_be_hidden()
    page.fill("#new-tokens", "3")
    page.click("#go-on")
    expect(page.locator("#about-original")).to_have_text("3 tokens")
    watched.assert_clean()


def test_what_is_dropped_is_looked_at_before_it_is_sent(visit: Visit) -> None:
    watched = visit()
    page = watched.open()
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    page.evaluate(DROP)
    expect(page.locator("#model-problem")).to_contain_text("wrong.gguf is no GGUF")
    watched.assert_clean()


def test_a_stream_that_breaks_off_is_taken_up_where_it_was(visit: Visit) -> None:
    page = open_tiny(visit())
    asked: dict[str, list[str | None]] = {}  # of every job: others of this server may still have streams

    def break_once(route: api.Route) -> None:
        before = asked.setdefault(route.request.url, [])
        before.append(route.request.headers.get("last-event-id"))
        if len(before) > 1:
            return route.continue_()
        piece = '{"side": "original", "index": 0, "token_id": 1, "text": "kept from before"}'
        return route.fulfill(content_type="text/event-stream", body=f"id: 1\nevent: piece\ndata: {piece}\n\nid: 2\nev")

    page.route("**/events", break_once)
    page.fill("#new-tokens", "4")  # the page still shows what a test before wrote, of 3
    page.click("#go-on")
    expect(page.locator("#about-swapped")).to_have_text("4 tokens")
    expect(page.locator("#parting")).to_contain_text("the same, token for token")
    assert [None, "1"] in asked.values()


@pytest.fixture
def another(browser: object, tmp_path: Path) -> Iterator[Server]:
    """A playground that a test may kill."""
    started = start(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def test_a_server_that_is_gone_is_said_above_all(visit: Visit, another: Server) -> None:
    page = visit(at=another).open()
    expect(page.locator("#foot")).to_contain_text("bitnet_train")
    assert page.locator("#silence").is_hidden()
    another.process.kill()
    expect(page.locator("#silence")).to_contain_text("does not answer")
    page.click("#try-tiny")
    expect(page.locator("#model-problem")).to_contain_text("does not answer")


def test_the_policy_refuses_inline_styles_and_scripts_and_is_heard(visit: Visit) -> None:
    watched = visit()
    page = watched.open()
    page.evaluate("() => document.body.setAttribute('style', 'color: red')")
    page.evaluate(INLINE)
    page.wait_for_timeout(200)
    assert len(watched.violations()) == 2
    assert page.evaluate("() => window.ran") is None
    assert page.evaluate("() => getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
