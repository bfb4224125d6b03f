"""Ask `pip-audit` whether an installed package has a known hole; a service that does not answer is no failure.

    python -m scripts.audit        # `scripts/check --audit` calls it

Exit 1 when a hole is known, with the package, its version and the one that mends it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

_PATIENCE_S = 300


def main() -> int:
    """Ask, and print what came of it."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--skip-editable", "--local"]
        try:
            said = subprocess.run(
                [*command, "--format", "json", "--output", str(report)],
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
            ).stderr
        except subprocess.TimeoutExpired:
            said = f"no answer in {_PATIENCE_S} s"
        status, lines = verdict(report.read_text(encoding="utf-8") if report.is_file() else "", said)
    print("\n".join(lines))
    return status


def verdict(report: str, said: str = "") -> tuple[int, list[str]]:
    """Return the exit status and the lines of a report of `pip-audit`; "" means that there is none."""
    if not report.strip():
        last = said.strip().splitlines()[-1:] or ["nothing"]
        return 0, [f"audit: nothing was asked: pip-audit said: {last[0]}"]
    packages = json.loads(report)["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    holes = [(package, hole) for package in asked for hole in package.get("vulns", [])]
    lines = [
        f"audit: {package['name']} {package['version']}: {hole['id']}, mended in "
        f"{', '.join(hole['fix_versions']) or 'no version yet'}"
        for package, hole in holes
    ]
    unknown = len(packages) - len(asked)
    rest = f"; of {unknown} the service knew nothing" if unknown else ""
    return int(bool(holes)), [*lines, f"audit: {len(asked)} packages, {len(holes)} known holes{rest}"]


if __name__ == "__main__":
    sys.exit(main())
