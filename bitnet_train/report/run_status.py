"""Where a run stands, from its files and from who holds it: at work, trained, interrupted, ended with an error."""

from __future__ import annotations

from bitnet_train.report.document import Status
from bitnet_train.report.figures import number
from bitnet_train.report.kept import KeptBudget, KeptProof, KeptTraining
from bitnet_train.report.run_files import RunFiles


def status_of(run: RunFiles) -> Status:
    """Return one word, one sentence and how it is to be taken."""
    reached, trained = last_step(run), run.get(KeptTraining)
    if is_at_work(run):
        worker = run.worker
        assert worker is not None, "someone is at work"
        return Status("running", f"{worker.what}, since {worker.since}{_at(run, reached)}.", "busy")
    proof = run.get(KeptProof)
    if run.error is not None:
        return Status("error", f"The last command ended with {run.error}", "bad")
    if trained is None or (reached is not None and reached > trained.steps):
        return _untrained(run, reached)
    if proof is not None and not proof.passed:
        return Status("not valid", "Validation failed: the packed folder does not compute what was trained.", "bad")
    early = ", stopped early as the held-out figure no longer fell" if trained.is_stopped_early else ""
    return Status("trained", f"{_steps(trained.steps)}{early}.", "good")


def last_step(run: RunFiles) -> int | None:
    """Return the last step that was logged, or saved."""
    logged = [row["step"] for row in run.metrics[-1:] if type(row.get("step")) is int]
    return max((*logged, *run.checkpoints[-1:]), default=None)


def is_at_work(run: RunFiles) -> bool:
    """Whether the process that holds the run has not ended the stage that it was called for."""
    worker = run.worker
    return worker is not None and run.written_ns.get(worker.verb, 0) < worker.since_ns


def planned_steps(run: RunFiles) -> int | None:
    """Return how many steps the run is to have, as it settled them."""
    budget = run.get(KeptBudget)
    return None if budget is None else budget.max_steps


def _untrained(run: RunFiles, reached: int | None) -> Status:
    if reached is None:
        done = ", ".join(run.frames) or "nothing"
        return Status("not trained", f"No step of training was logged. Ended so far: {done}.", "plain")
    saved = (
        f" The newest checkpoint is of step {number(run.checkpoints[-1], 0)}: `bitnet-train train RUN` goes on from it."
        if run.checkpoints
        else " No checkpoint was saved."
    )
    return Status("interrupted", f"Training ended{_at(run, reached)}.{saved}", "bad")


def _at(run: RunFiles, reached: int | None) -> str:
    planned = planned_steps(run)
    if reached is None:
        return ""
    return f" at step {number(reached, 0)}" + (f" of {number(planned, 0)}" if planned is not None else "")


def _steps(steps: int) -> str:
    return "1 step of training" if steps == 1 else f"{number(steps, 0)} steps of training"
