"""What a report of pip-audit comes to; its form is that of version 2.10."""

from __future__ import annotations

import json

from scripts.audit import verdict

SOUND = {"name": "numpy", "version": "2.0.0", "vulns": []}
HOLED = {"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "CVE-2024-22195", "fix_versions": ["3.1.3"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


def report(*packages: dict) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_known_hole_fails_and_says_what_mends_it():
    status, lines = verdict(report(SOUND, HOLED))
    assert status == 1
    assert lines == [
        "audit: jinja2 3.1.2: CVE-2024-22195, mended in 3.1.3",
        "audit: 2 packages, 1 known holes",
    ]


def test_packages_that_the_service_does_not_know_are_counted():
    assert verdict(report(SOUND, UNKNOWN)) == (0, ["audit: 1 packages, 0 known holes; of 1 the service knew nothing"])


def test_a_service_that_does_not_answer_fails_nothing_and_says_so():
    status, lines = verdict("", "ConnectionError: pypi.org\nnot reachable\n")
    assert status == 0
    assert lines == ["audit: nothing was asked: pip-audit said: not reachable"]
