"""Settings of reports: the section `report`."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.settings import setting


@dataclass(frozen=True)
class ReportConfig:
    """Where `bitnet-train report` writes."""

    to: str | None = setting(
        None, "file of the page; null = report.html of the run, of several report_compare.html of the first", path=True
    )
