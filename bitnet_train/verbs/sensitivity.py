"""The stage `sensitivity`: which parts of a model suffer most from the recipe's scheme, measured without training.

It ends with a word to paste: the `weight.overrides` that a few more megabytes would best be spent on, and what the
untrained model measures with them.
"""

from __future__ import annotations

from typing import Any

from bitnet_train.config import Config, changed
from bitnet_train.errors import ConfigError
from bitnet_train.importers.load import LoadedModel, load_pretrained
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.sensitivity.facts import Advice, SensitivityFacts
from bitnet_train.sensitivity.reference import Fidelity
from bitnet_train.sensitivity.scan import Scan, Scanner
from bitnet_train.sensitivity.suggest import Suggestion, override_word, suggest
from bitnet_train.sensitivity.tables import describe, sensitivity_tables


def sensitivity(config: Config) -> SensitivityFacts:
    """Measure every family and block alone quantised and alone spared; suggest `weight.overrides` for a budget."""
    assembly.prepare_process(config)
    config, directory = assembly.open_run(config)
    console = open_console(config.quiet)
    original = load_pretrained(config.model.source)
    scanner = _scanner(config, original, directory)
    console.print(f"Model: {original.description}")
    scan = scanner.scan(layers=config.sensitivity.layers)
    for table in sensitivity_tables(scan):
        console.print(table)
    console.print(f"Float: perplexity {scan.perplexity:.4g} over {scan.tokens:,} tokens.")
    console.print(f"Everything as planned, {scan.planned_bytes / 1e6:.2f} MB: {describe(scan.everything)}.")
    extra = _extra_bytes(config, scan)
    chosen = suggest(scan.results, extra)
    mixed, entries = _measured(config, original, scanner, chosen)
    word = override_word(entries)
    console.print(_advice(chosen, extra, mixed))
    if chosen:
        console.print(word, markup=False, soft_wrap=True)
    spent = sum(choice.extra_bytes for choice in chosen)
    advice = Advice(extra, spent, tuple(entries), word, mixed)
    return directory.keep(SensitivityFacts(original.description, original.source, scan, advice))


def _scanner(config: Config, original: LoadedModel, directory: RunDirectory) -> Scanner:
    if original.record is not None:
        raise ConfigError(
            f"`model.source={config.model.source}` is 1-bit already, so there is nothing left to compare its layers "
            "with. Give the float model that it was made from."
        )
    plan = assembly.plan_of(config, original)
    small = changed(config, {"evaluate.max_tokens": config.sensitivity.max_tokens})
    rows = assembly.held_out_rows(small, assembly.data_module(small, original, directory))
    return Scanner(original.model, plan, config.weight.scheme, config.activation, rows)


def _extra_bytes(config: Config, scan: Scan) -> float:
    settings = config.sensitivity
    return scan.planned_bytes * settings.extra_share if settings.extra_mb is None else settings.extra_mb * 1e6


def _measured(
    config: Config, original: LoadedModel, scanner: Scanner, chosen: list[Suggestion]
) -> tuple[Fidelity | None, list[dict[str, Any]]]:
    """The whole model with the suggestion, untrained, and the entries: the recipe's own first, for later ones win."""
    entries = [*config.weight.overrides, *(choice.entry for choice in chosen)]
    if not chosen:
        return None, entries
    mixed = changed(config, {"weight.overrides": tuple(entries)})
    return scanner.measure(assembly.plan_of(mixed, original).schemes), entries


def _advice(chosen: list[Suggestion], extra: float, mixed: Fidelity | None) -> str:
    if mixed is None:
        return f"No part becomes better for {extra / 1e6:.2f} MB more. Allow more with `sensitivity.extra_mb`."
    spent = sum(choice.extra_bytes for choice in chosen)
    return f"For {spent / 1e6:.2f} of {extra / 1e6:.2f} MB more, {describe(mixed)}, untrained, with:"
