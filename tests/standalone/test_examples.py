"""The C of docs/embed.md and the header itself compile, as C and as what a JVM loads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.standalone.built import CSRC, ROOT

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]

HEADERS = CSRC / "standalone"
CHECK = ("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-I{HEADERS}", "-x", "c")


def examples() -> dict[str, str]:
    """The blocks of C in the page, by what they are called in the line above."""
    page = (ROOT / "docs" / "embed.md").read_text()
    return dict(re.findall(r"^`(\w+\.c)`[^`]*\n\n```c\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def jni_folders() -> list[str]:
    """Folders of the headers of a Java development kit, if there is one."""
    javac = shutil.which("javac")
    kits = [Path(javac).resolve().parents[1]] if javac else []
    return [
        f"-I{kit / 'include' / part}"
        for kit in kits
        if (kit / "include" / "jni.h").is_file()
        for part in (".", "linux")
    ]


def require_compiles(text: str, *flags: str) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    done = subprocess.run([*CHECK, *flags, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_has_two_examples():
    assert list(examples()) == ["hello.c", "bitnet_jni.c"]


def test_the_header_is_c_of_its_own():
    require_compiles(
        '#include "bitnet.h"\nint main(void) { bitnet_sampling how = BITNET_GREEDY; return (int)how.top_k; }\n'
    )


def test_the_c_example_compiles():
    require_compiles(examples()["hello.c"])


@pytest.mark.skipif(not jni_folders(), reason="needs the headers of a Java development kit")
def test_the_jni_example_compiles_against_the_headers_of_java():
    require_compiles(examples()["bitnet_jni.c"], *jni_folders())


def test_the_c_example_runs(here, bundled, tmp_path):
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text(examples()["hello.c"])
    library = ["-L", str(here), "-lbitnet", f"-Wl,-rpath,{here}"]
    subprocess.run(["gcc", f"-I{HEADERS}", str(source), *library, "-o", str(program)], check=True)
    done = subprocess.run([program, bundled, "Once upon a time"], capture_output=True, text=True, check=False)
    theirs = subprocess.run(
        [here / "bitnet-run", bundled, "Once upon a time", "-n", "64"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, theirs.stdout)
