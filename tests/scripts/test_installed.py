"""`python -m scripts....` looks where the package is installed first: a checkout may lack the compiled kernels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bitnet_train
import scripts


def test_a_script_runs_the_installed_package_not_the_one_beside_it(tmp_path: Path) -> None:
    for name in ("scripts", "bitnet_train"):
        (tmp_path / name).mkdir()
    shutil.copy(str(scripts.__file__), tmp_path / "scripts")
    (tmp_path / "scripts" / "probe.py").write_text("import bitnet_train; print(bitnet_train.__file__)\n")
    (tmp_path / "bitnet_train" / "__init__.py").write_text('raise SystemExit("the one beside the scripts")\n')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(Path(bitnet_train.__file__).parents[1])  # as where packages are installed
    command = [sys.executable, "-m", "scripts.probe"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == bitnet_train.__file__, done.stderr


def test_a_script_starts_another_from_any_folder_with_the_installed_package(tmp_path: Path) -> None:
    (tmp_path / "bitnet_train").mkdir()
    (tmp_path / "bitnet_train" / "__init__.py").write_text('raise SystemExit("the one of this folder")\n')
    for safe in ({}, {"PYTHONSAFEPATH": "1"}):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | safe
        command = [*scripts.module_command("scripts.tables.results"), "--check"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_no_script_starts_another_by_a_name_that_the_folder_must_explain() -> None:
    files = [*Path(scripts.ROOT, "scripts").rglob("*.py"), *Path(scripts.ROOT, "tests").rglob("*.py")]
    by_name = re.compile(r"""["']-m["'],\s*(?:["']scripts\.|__spec__|WORKER)""")
    found = [path.name for path in files if by_name.search(path.read_text(encoding="utf-8"))]
    assert found == ["test_installed.py"]  # the test above, of what is typed by hand
