"""A real Chromium before a real playground: fixtures that start both, and a page that keeps what went wrong in it.

Chromium is the system's, found by BITNET_TEST_CHROMIUM or on the PATH; nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WATCH = Path(__file__).with_name("watch.js")
WAIT_MS = 120_000  # a machine of two cores may be about something else
TEXT_TOKENS = 64


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that lies here."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("browser")
            item.add_marker("slow")


@dataclass
class Server:
    """A playground that runs: its address with the token, and its process."""

    address: str
    process: subprocess.Popen[str]
    folder: Path

    @property
    def root(self) -> str:
        """The address without the token."""
        return self.address.partition("?")[0]

    def workbenches(self) -> list[int]:
        """The processes that hold models."""
        return [pid for pid in _children(self.process.pid) if "workbench" in _command(pid)]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a file. While it runs, so does an event loop, which other files must not find."""
    api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")
    found = os.environ.get("BITNET_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no browser test: no Chromium; `apt-get install chromium`, or set BITNET_TEST_CHROMIUM")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def start(folder: Path, *words: str) -> Server:
    """Start `bitnet-train playground` and return it as soon as it says its address."""
    settings = ["serve.port=0", f"playground.dir={folder / 'playground'}", f"run.root={folder / 'runs'}"]
    command = [sys.executable, "-m", "bitnet_train", "playground", *words, "--quiet"]
    log = (folder / "server.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [*command, *settings, f"playground.text_tokens={TEXT_TOKENS}"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), (folder / "server.log").read_text(encoding="utf-8")
    return Server(address, process, folder)


def stop(server: Server) -> None:
    """End it as Ctrl-C does."""
    server.process.send_signal(signal.SIGINT)
    try:
        server.process.wait(60)
    finally:
        server.process.kill()


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A playground for the tests of one file, with no model."""
    started = start(tmp_path_factory.mktemp("playground"))
    yield started
    stop(started)


@dataclass
class Watched:
    """A page, and what its console, its policy and its layout had to say."""

    page: Page
    server: Server
    console: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, address: str | None = None) -> Page:
        """Go to the playground, or to an address."""
        self.page.goto(address or self.server.address)
        return self.page

    def violations(self) -> list[str]:
        """What the content security policy refused."""
        return self.page.evaluate("() => window.watched.violations")

    def shift(self) -> float:
        """The sum of layout shifts that no input explains."""
        return self.page.evaluate("() => window.watched.shift")

    def assert_clean(self) -> None:
        """No error, no refusal, nothing asked of another machine."""
        assert self.console == []
        assert self.violations() == []
        assert self.foreign == []


def _watch(context: BrowserContext, server: Server) -> Watched:
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    watched = Watched(page, server)
    host = server.root.split("/")[2]
    page.on(
        "console",
        lambda said: (
            said.type in ("error", "warning") and watched.console.append(f"{said.text} {said.location['url']}")
        ),
    )
    page.on("pageerror", lambda error: watched.console.append(str(error)))
    page.on("request", lambda asked: None if _is_own(asked.url, host) else watched.foreign.append(asked.url))
    return watched


def _is_own(url: str, host: str) -> bool:
    return url.startswith((f"http://{host}/", f"blob:http://{host}/"))


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Watched]]:
    """Make a page of a width and a colour scheme, with storage of its own."""
    contexts: list[BrowserContext] = []

    def make(
        width: int = 1280, height: int = 900, dark: bool = False, at: Server | None = None, **more: Any
    ) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **more
        )
        context.add_init_script(path=WATCH)
        contexts.append(context)
        return _watch(context, at or server)

    yield make
    for context in contexts:
        context.close()
