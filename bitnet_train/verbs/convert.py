"""`bitnet-train convert`: which layers become 1-bit, and what plain swapping costs."""

from __future__ import annotations

from copy import deepcopy

from bitnet_train.config import Config
from bitnet_train.evaluate.perplexity import perplexity
from bitnet_train.model.bit_linear import on_kernels
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.exports import check_exports
from bitnet_train.run.facts import ConvertFacts
from bitnet_train.run.plane_budget import settle_planes
from bitnet_train.run.session import Session


def convert(config: Config, session: Session | None = None, *, is_compared_later: bool = False) -> ConvertFacts:
    """Show which layers become 1-bit, and what swapping them without training costs.

    `is_compared_later`: `evaluate` will measure the original on the same rows, so it is not measured here.
    """
    assembly.prepare_process(config)
    config, directory = assembly.open_run(config)
    console, is_alone = open_console(config.quiet), session is None
    session = session or Session(config)
    original = session.original()
    check_exports(config, original)
    console.print(f"Model: {original.description}")
    data = session.data(directory)
    settle_planes(config, original, data, directory, console)
    plan = assembly.plan_of(config, original)
    console.print(plan.render(), soft_wrap=True)
    assembly.print_kept_scheme(config, original, console)
    rows = assembly.held_out_rows(config, data)
    before = None if is_compared_later else perplexity(original.model, rows)
    model = original.model if is_alone else deepcopy(original.model)
    record = assembly.convert_model(config, model, original.record)
    with on_kernels():
        swapped = perplexity(model, rows)
    known = "" if before is None else f" {before.perplexity:.2f};"
    console.print(f"Held-out perplexity{known} {swapped.perplexity:,.1f} with the layers just swapped.")
    return directory.keep(
        ConvertFacts(
            model=original.description,
            source=original.source,
            layers=len(plan.converted),
            weights=plan.num_weights,
            record=record,
            data=data.describe(),
            full_precision=before,
            swapped=swapped,
        )
    )
