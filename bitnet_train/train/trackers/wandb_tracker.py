"""Weights & Biases: online where a key is set and its server answers, else a recording that can be sent later.

wandb itself tries for minutes to reach a server (`init_timeout`, retries, uploads at the end). Here it is asked, for a
second, at the start and at the end, and each of wandb's own waits has an end; a run that cannot start online is
recorded offline, which is said, and one whose server is gone by the end stays in its folder. wandb's caches, staging
area and logs are kept inside the run directory, and it records neither the command line, the repository's address, nor
the machine: all three have held secrets.

A run keeps its id, so one that is resumed is one run: online the server goes on with it, offline each process leaves a
recording, and `wandb sync` puts those of one id together in order of their start. A step of wandb is one of training.
"""

from __future__ import annotations

import netrc
import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from bitnet_train.train.trackers.guarded_tracker import Say
from bitnet_train.train.trackers.panels import panels
from bitnet_train.train.trackers.redaction import redact_text
from bitnet_train.train.trackers.told import Told, earlier_samples
from bitnet_train.train.trackers.tracker import Artefact, Figure, Line, Status, TrackedRun, Tracker

WANDB_MODES = {"auto": None, "online": False, "offline": True}  # value: offline
PROBE_S = 1.0
_TIMEOUTS = {"init_timeout": 5.0, "finish_timeout": 10.0}  # seconds; a version without one of them does without
STEP = "trainer/global_step"  # as Lightning's users know it
SAMPLES = "samples"
_CHECKSUM_BYTES = 1 << 30  # files of folders up to this size are listed by their digests, else only where they lie
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


class WandbTracker(Tracker):
    """One run of wandb, which ends when ours does."""

    def __init__(self, experiment: Any, run: TrackedRun) -> None:
        self._experiment, self._run = experiment, run
        self._step = 0
        self._samples = earlier_samples(run.run_dir)
        self._untold: int | None = None  # the step of samples that wandb has not seen
        experiment.define_metric(STEP, hidden=True)
        experiment.define_metric("*", step_metric=STEP, step_sync=True)

    def configure(self, config: Mapping[str, Any]) -> None:
        """Show the configuration as it is nested; wandb groups it by section."""
        self._experiment.config.update(dict(config), allow_val_change=True)

    def log(self, lines: Sequence[Line]) -> None:
        """Log figures. Raises ConnectionError where wandb's own process has died."""
        self._tell_samples()
        for step, figures in lines:
            self._log(panels(figures), self._step if step is None else step)

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._step = max(self._step, step)
        with _no_farewell_to_the_dead():
            self._experiment.log({**values, STEP: step}, step=self._step)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Keep a text for the table, which is shown anew, with all texts so far, when those of a step are there."""
        if self._untold != step:
            self._tell_samples()
        self._samples[step, prompt] = text
        self._untold = step

    def _tell_samples(self) -> None:
        if self._untold is None:
            return
        import wandb

        step, self._untold = self._untold, None
        rows: list[Any] = [[at, prompt, text] for (at, prompt), text in self._samples.items()]
        self._log({SAMPLES: wandb.Table(columns=["step", "prompt", "text"], data=rows)}, step)

    def summarise(self, figures: Mapping[str, Figure], step: int) -> None:
        """Put figures beside the last ones of the run, where its table of runs and its filters find them."""
        self._experiment.summary.update(dict(figures))

    def keep(self, artefact: Artefact) -> None:
        """Log an artefact: what it refers to, or its files where they are to be sent; an input is one that was used.

        An input is logged and used in one, as `use_artifact` does with a new one, which itself refuses offline.
        """
        made = self._artifact(artefact)
        if artefact.is_input:
            self._experiment._log_artifact(made, is_user_created=True, use_after_commit=True)
        else:
            self._experiment.log_artifact(made)

    def _artifact(self, artefact: Artefact) -> Any:
        import wandb

        known = {"place": artefact.place, "made_from": artefact.made_from, **artefact.facts}
        name = artefact.name if artefact.is_input else f"{self._run.group or self._run.project}-{artefact.name}"
        made = wandb.Artifact(re.sub(r"[^\w.-]+", "-", name)[:128], artefact.kind, metadata=known)
        path = artefact.path
        if path is None:
            made.add_reference(artefact.place, name="place", checksum=False)
        elif not self._run.upload or artefact.is_input:
            made.add_reference(path.as_uri(), checksum=_size_bytes(path) <= _CHECKSUM_BYTES and not artefact.is_input)
        elif path.is_dir():
            made.add_dir(str(path), policy="immutable", skip_cache=True)
        else:
            made.add_file(str(path), policy="immutable", skip_cache=True)
        return made

    def save(self) -> None:
        """Every call has gone to wandb's own process, which writes."""

    def finish(self, status: Status) -> None:
        """End the run; what is not sent within some seconds stays in its folder.

        Raises ConnectionError where the server is gone, for wandb would wait for it to come back.
        """
        self._tell_samples()
        server = self._experiment.settings.base_url
        if not self._experiment.offline and not is_reachable(server):
            place = self._run.run_dir / "wandb"
            raise ConnectionError(f"{server} is gone. Send the figures later: `wandb sync {place}/run-*`")
        with _no_farewell_to_the_dead():
            self._experiment.finish(exit_code=0 if status == "success" else 1)


@contextmanager
def _no_farewell_to_the_dead() -> Iterator[None]:
    """Take back what wandb does at exit where its process has died: it writes to it, and prints how that failed."""
    try:
        yield
    except ConnectionError:
        import wandb

        with suppress(Exception):
            wandb.teardown()
        raise


def wandb_tracker(run: TrackedRun, told: Told, say: Say) -> WandbTracker:
    """Start or take up a wandb run in `run_dir`/wandb, offline where the run says so or online cannot be."""
    _keep_wandb_inside(run.run_dir / "wandb")
    mode = _mode(run.offline)
    try:
        experiment = _start(run, told.id, mode)
    except Exception as error:
        if mode != "online":
            raise
        say(_offline_note(redact_text(str(error)), run.run_dir))
        _free_the_id()
        experiment = _start(run, told.id, "offline")
    return WandbTracker(experiment, run)


def _free_the_id() -> None:
    """End wandb's own process, to which the id of a run that could not start online is in use."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _mode(offline: bool | None) -> str:
    asked = os.environ.get("WANDB_MODE", "") if offline is None else ""
    if asked in ("offline", "dryrun", "disabled"):
        return asked.replace("dryrun", "offline")
    return "offline" if offline or (offline is None and not wandb_has_key()) else "online"


def _start(run: TrackedRun, identity: str, mode: str) -> Any:
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
    return wandb.init(
        project=run.project,
        name=run.name,
        group=run.group,
        job_type=run.job_type,
        tags=list(run.tags),
        dir=str(run.run_dir),
        id=identity,
        resume="allow" if mode == "online" else None,  # offline it would be ignored, with a warning
        reinit="create_new",
        settings=settings,
    )


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


def _size_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


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
