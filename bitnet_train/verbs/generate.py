"""`bitnet-train generate`: continue a prompt with the native runtime where the artefact fits it, else with torch.

A stage in a file of its own, because the native runtime answers before torch would be imported.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bitnet_train.config.schema import Config
from bitnet_train.errors import ConfigError
from bitnet_train.progress import open_console
from bitnet_train.run.directory import packed_folder
from bitnet_train.run.prompt import asked, sampling
from bitnet_train.runtime.generation import Generation
from bitnet_train.runtime.messages import Prompt


def generate(config: Config) -> dict[str, Any]:
    """Continue `generate.prompt`, or answer the chat, with the packed model, streaming."""
    artefact, _ = packed_folder(config)
    console, settings = open_console(config.quiet), config.generate
    reason = _against_native(config, artefact)
    if reason is not None and settings.engine == "auto":
        note = f"note: torch computes this artefact, for it does not fit the native engine: {reason}."
        open_console(config.quiet, stderr=True).print(note, markup=False, soft_wrap=True)
    prompt = asked(config)
    _show(console, prompt if isinstance(prompt, str) else f"{prompt[-1]['content']}\n")
    made = (_by_native if reason is None else _by_torch)(config, artefact, prompt, console)
    console.print()
    facts = {"prompt": prompt} if isinstance(prompt, str) else {"prompt": prompt[-1]["content"], "messages": prompt}
    return {**facts, "engine": "native" if reason is None else "hf", **asdict(made)}


def _against_native(config: Config, artefact: Path) -> str | None:
    """Return why torch computes, or None; ConfigError where the configuration needs the native engine."""
    from bitnet_train.runtime.native.support import reason_against, require_native_cache

    settings = config.generate
    if settings.engine == "hf":
        require_native_cache(settings.cache_dtype, artefact, "`generate.engine=hf`")
        return "`generate.engine=hf`"
    reason = reason_against(artefact)
    if reason is not None and settings.engine == "native":
        raise ConfigError(f"`generate.engine=native`: {artefact} does not fit: {reason}. Set it to auto or hf.")
    if reason is not None and settings.prompt_cache is not None:
        raise ConfigError(
            f"`generate.prompt_cache` is kept by the native engine alone, and {artefact} does not fit it: {reason}. "
            "Leave it out."
        )
    require_native_cache(settings.cache_dtype, artefact, reason)
    return reason


def _by_native(config: Config, artefact: Path, prompt: Prompt, console: Console) -> Generation:
    from bitnet_train.runtime.native.model import NativeModel

    model = NativeModel.load(artefact, num_threads=config.generate.threads, cache_dtype=config.generate.cache_dtype)
    return model.generate(
        prompt,
        **sampling(config),
        stream=lambda text: _show(console, text),
        prompt_cache=config.generate.prompt_cache,
    )


def _by_torch(config: Config, artefact: Path, prompt: Prompt, console: Console) -> Generation:
    from bitnet_train.run import assembly
    from bitnet_train.runtime.generate import generate as continue_prompt
    from bitnet_train.runtime.load import load, load_tokenizer

    assembly.prepare_process(config)
    return continue_prompt(
        load(artefact),
        load_tokenizer(artefact),
        prompt,
        **sampling(config),
        stream=lambda text: _show(console, text),
    )


def _show(console: Console, text: str) -> None:
    console.print(text, end="", markup=False, soft_wrap=True)
