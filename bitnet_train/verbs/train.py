"""`bitnet-train train`: train through the quantiser, or go on where an interrupted run stopped."""

from __future__ import annotations

from typing import Any

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import to_dict, to_yaml
from bitnet_train.kernels.torch_threads import on_torch_threads
from bitnet_train.model.bit_lora import trainable_report
from bitnet_train.progress import open_console, warn
from bitnet_train.run import assembly, expectation, summary
from bitnet_train.run.dry_run import describe_training
from bitnet_train.run.exports import check_exports
from bitnet_train.run.facts import PlanFacts, TrainFacts
from bitnet_train.run.length import settle
from bitnet_train.run.machine import settle_machine
from bitnet_train.run.plane_budget import settle_planes
from bitnet_train.run.ranks import lead
from bitnet_train.run.session import Session
from bitnet_train.run.starting_point import spent_before
from bitnet_train.run.teacher_products import settle_teacher
from bitnet_train.run.too_little_memory import told_with_the_estimate
from bitnet_train.run.tracked import check_trackers, show, tracked
from bitnet_train.run.trained_settings import (
    CONTENT,
    check_continued,
    check_resumed,
    is_other_text,
    settings_of,
    step_reached,
)
from bitnet_train.run.watched import watching
from bitnet_train.train.data.summary import print_data
from bitnet_train.train.loop.fit import fit
from bitnet_train.train.loop.freed_memory import keep_freed_memory
from bitnet_train.train.loop.optim import reach
from bitnet_train.train.loop.sign_flips import SignFlips
from bitnet_train.train.trackers.redaction import redact


@on_torch_threads()
def train(config: Config, session: Session | None = None) -> TrainFacts | dict[str, Any]:
    """Train through the quantiser up to `trainer.max_steps`, or go on where an interrupted run stopped."""
    assembly.prepare_process(config)
    assembly.check_machine(config)
    check_trackers(config)
    check_resumed(config)
    check_continued(config)
    if config.dry_run:
        return describe_training(config, open_console(config.quiet))
    keep_freed_memory()
    config, directory = assembly.open_run(config)
    console, given = open_console(config.quiet), to_yaml(config)
    is_alone, session = session is None, session or Session(config)
    config, machine = settle_machine(config, directory, console)
    original = session.original()
    check_exports(config, original)
    data = session.data(directory)
    print_data(console, data.describe())
    settle_planes(config, original, data, directory, console)
    student = assembly.prepare_student(config, original, directory, data)
    directory.keep(PlanFacts.of(student.plan))
    assembly.print_kept_scheme(config, original, console)
    module = assembly.training_module(config, student, original, directory, packed=data.is_packed)
    settle_teacher(config, module, data.first_batch(), directory, console)
    length = settle(config, module, data, directory)
    config, estimate = changed(config, {"trainer.max_steps": length.steps}), length.estimate
    module.max_steps, module.optim, data.short_steps = length.steps, length.optim, length.short_steps
    trainable, total = trainable_report(student.model)
    console.print(f"Training {trainable:,} of {total:,} parameters, peak learning rate {length.rate:.3g}.")
    console.print(f"Budget: {estimate.describe()}; {machine.why}.", soft_wrap=True)
    if (slow := expectation.warning(config, estimate, machine.arithmetic)) is not None:
        console.print(f"note: {slow}", soft_wrap=True)
    distance = reach(student.model, module.optim, config.trainer.max_steps)
    if distance is not None and (warning := distance.warning()):
        console.print(f"note: {warning}")
    content = data.describe().content_sha256
    if is_other_text(config, content):
        warn(
            "the text is not the one that the steps so far were trained on. The run goes on with it, from step "
            f"{step_reached(config)} on, and not as the uninterrupted run would have: rows that are held out now may "
            "have been trained on."
        )
    module.announced = assembly.record_run(config, given, directory, console.print)
    lead(directory.root)
    settled = {f"trainer.{name}": getattr(config.trainer, name) for name in ("precision", "products")}
    with told_with_the_estimate(config, estimate), tracked(config, directory, session) as trackers:
        result = fit(
            module,
            data,
            config.trainer,
            directory.root,
            trackers.loggers,
            watching(
                config,
                student.tokenizer,
                directory.root,
                lambda text: trackers.sample(text.step, text.prompt, text.text),
            ),
            settings=settings_of(given) | settled | {CONTENT: content},
            measuring=[SignFlips(config.trainer.validate_every_steps, config.trainer.save_every_steps)],
            debug=config.debug,
            quiet=config.quiet,
        )
        facts = TrainFacts(
            result=result,
            lr=length.rate,
            arithmetic=machine.why,
            before=spent_before(config, directory),
            trainable_parameters=trainable,
            parameters=total,
            data=data.describe(),
            config=redact(to_dict(config)),
        )
        show(trackers, facts, config)
    if result.is_stopped_early:
        console.print(
            f"Stopped after step {result.steps} of {estimate.max_steps}: no better held-out figure in "
            f"{config.trainer.patience} validations (`trainer.patience`), the best is that of step {result.best_step}.",
            soft_wrap=True,
        )
    console.print(summary.after_training(result, directory.root), markup=False, soft_wrap=True)
    if is_alone:
        console.print(f"Next: bitnet-train merge {directory.root}", markup=False, soft_wrap=True)
    return directory.keep(facts)
