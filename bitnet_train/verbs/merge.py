"""`bitnet-train merge`: what was trained, folded into the latent weights."""

from __future__ import annotations

from bitnet_train.config import Config
from bitnet_train.model.converted import save_converted
from bitnet_train.model.merge import merge as merge_model
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.facts import MergeFacts
from bitnet_train.run.session import Session


def merge(config: Config, session: Session | None = None) -> MergeFacts:
    """Fold what was trained into the latent weights, checked bit for bit, and save the model in float32."""
    assembly.prepare_process(config)
    directory, console = assembly.finished_run(config), open_console(config.quiet)
    original = (session or Session(config)).original()
    trained = assembly.trained_student(config, original, directory)
    student = trained.student
    merged = merge_model(student.model).eval()
    save_converted(merged, student.record, directory.merged, student.tokenizer, replace=True)
    chosen = f", the best by held-out perplexity, {trained.best['val_perplexity']:.2f}," if trained.best else ""
    console.print(f"Merged step {trained.step}{chosen} into {directory.merged}")
    facts = MergeFacts(str(trained.checkpoint), trained.step, trained.best, trained.tokens, trained.metrics)
    return directory.keep(facts)
