"""Weights & Biases: online where a key is set and its server answers, else a recording that can be sent later.

wandb itself tries for minutes to reach a server (`init_timeout`, retries, uploads at the end). Here it is asked, for a
second, at the start and at the end, and each of wandb's own waits has an end; a run that cannot start online is
recorded offline, which is said, and one whose server is gone by the end stays in its folder. wandb's caches, staging
area and logs are kept inside the run directory, and it records neither the command line, the repository's address, nor
the machine: all three have held secrets.
"""

from __future__ import annotations

import netrc
import os
import ssl
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from lightning.pytorch.loggers import WandbLogger

from bitnet_train.train.trackers.guarded_tracker import Say
from bitnet_train.train.trackers.redaction import redact_text

WANDB_MODES = {"auto": None, "online": False, "offline": True}  # value: offline
PROBE_S = 1.0
_TIMEOUTS = {"init_timeout": 5.0, "finish_timeout": 10.0}  # seconds; a version without one of them does without
_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # where `wandb login` stores a key, before 0.31 and since


def wandb_has_key() -> bool:
    """Tell whether wandb would find a key: in the environment, or in the netrc file that `wandb login` writes."""
    return bool(os.environ.get("WANDB_API_KEY")) or any(_has_login(host) for host in _hosts())


def is_reachable(url: str, seconds: float = PROBE_S) -> bool:
    """Tell whether a server answers at all within so many seconds, through the proxy of the environment if it has one.

    Nothing secret is sent, and no certificate is checked: that is wandb's business, which knows more roots than Python.
    """
    answers: list[bool] = []
    asking = Thread(target=lambda: answers.append(_answers(url, seconds)), daemon=True)  # a name's lookup has no limit
    asking.start()
    asking.join(seconds)
    return any(answers)


class WandbTracker(WandbLogger):
    """Lightning's logger on a run of its own, which ends when training does."""

    def finalize(self, status: str) -> None:
        """End the run; what is not sent within some seconds stays in its folder.

        Raises ConnectionError where the server is gone, for wandb would wait for it to come back.
        """
        super().finalize(status)
        server = self.experiment.settings.base_url
        if not self.experiment.offline and not is_reachable(server):
            raise ConnectionError(f"{server} is gone. Send the figures later: `wandb sync {self.save_dir}/wandb/run-*`")
        self.experiment.finish(exit_code=0 if status == "success" else 1)


def wandb_tracker(run_dir: Path, project: str, name: str, offline: bool | None, say: Say) -> WandbTracker:
    """Start a wandb run in `run_dir`/wandb, offline where `offline` says so or online cannot be."""
    _keep_wandb_inside(run_dir / "wandb")
    mode = _mode(offline)
    try:
        run = _start(run_dir, project, name, mode)
    except Exception as error:
        if mode != "online":
            raise
        say(_offline_note(redact_text(str(error)), run_dir))
        run = _start(run_dir, project, name, "offline")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbTracker(name=name, save_dir=run_dir, project=project, experiment=run)


def _mode(offline: bool | None) -> str:
    asked = os.environ.get("WANDB_MODE", "") if offline is None else ""
    if asked in ("offline", "dryrun", "disabled"):
        return asked.replace("dryrun", "offline")
    return "offline" if offline or (offline is None and not wandb_has_key()) else "online"


def _start(run_dir: Path, project: str, name: str, mode: str) -> Any:
    import wandb

    if mode == "online":
        _check_online(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url)
    known: dict[str, Any] = {name: value for name, value in _TIMEOUTS.items() if name in wandb.Settings.model_fields}
    chosen: Any = mode
    settings = wandb.Settings(
        mode=chosen,
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        **known,
    )
    return wandb.init(project=project, name=name, dir=str(run_dir), reinit="create_new", settings=settings)


def _check_online(url: str) -> None:
    if not wandb_has_key():
        raise ConnectionError("`logger.mode=online` needs a key, and none is set (`wandb login`)")
    if not is_reachable(url):
        raise ConnectionError(f"{url} does not answer within {PROBE_S:.0f} s")


def _offline_note(reason: str, run_dir: Path) -> str:
    first_line = reason.splitlines()[0][:200].rstrip(". ") if reason else "it did not start"
    recording = run_dir / "wandb" / "offline-run-*"
    return f"wandb records offline: {first_line}. Send it later: `wandb sync {recording}`."


def _answers(url: str, seconds: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        urlopen(url, timeout=seconds, context=context).close()
    except HTTPError:  # an answer too
        return True
    except (OSError, ValueError, HTTPException):
        return False
    return True


def _hosts() -> tuple[str, ...]:
    given = os.environ.get("WANDB_BASE_URL")
    return (given.split("://")[-1].split("/")[0],) if given else _HOSTS


def _has_login(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _keep_wandb_inside(folder: Path) -> None:
    """Point every folder that wandb would make in the user's home into `folder`, and keep its greetings off screen."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_SILENT"] = "true"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # sent to its maker at exit, and complained of if it cannot
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[variable] = str(folder.absolute())
