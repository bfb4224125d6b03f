"""`bitnet-train evaluate`: the packed model beside the model it was made from, as facts and as a report.

Files are read, and refused, before a model is loaded. What needs the original is left out with the reason where there
is none: an artefact alone, `evaluate.against=none`, or a source that cannot be loaded any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.bench.decode_speed import original_speed, packed_speed
from bitnet_train.config import Config
from bitnet_train.errors import BitnetTrainError, ConfigError
from bitnet_train.evaluate.comparison import compare
from bitnet_train.evaluate.jsonl import spread
from bitnet_train.evaluate.multiple_choice import Question, answer, read_questions, report
from bitnet_train.evaluate.prompt_files import Prompt, read_prompts
from bitnet_train.evaluate.side_by_side import Limits, reason_to_skip, side_by_side
from bitnet_train.evaluate.writers import packed_writer, torch_writer
from bitnet_train.importers.load import LoadedModel, load_pretrained
from bitnet_train.model.config_fields import max_positions
from bitnet_train.progress import open_console
from bitnet_train.report.evaluation import describe_speeds, spoken
from bitnet_train.report.write import write_report
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory, packed_folder
from bitnet_train.run.session import Session
from bitnet_train.runtime.load import load_tokenizer

__all__ = ["evaluate"]

NO_MODEL = "none"  # of `evaluate.against`
_NO_LIMIT = 1 << 30
Facts = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What the configured files hold, by file."""

    texts: dict[Path, str]
    questions: dict[Path, list[Question]]
    prompts: dict[Path, list[Prompt]]


@dataclass(frozen=True)
class Models:
    """The packed model, its tokenizer and folder; the original where there is one, else why not."""

    folder: Path
    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    original: LoadedModel | None
    not_compared: str | None

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The model to compare with."""
        return self.original.model if self.original is not None else None

    @property
    def context_tokens(self) -> int:
        """The most positions that every model here has; a number beyond all texts where no model states a limit."""
        limits = (max_positions(model) for model in (self.student, self.teacher) if model is not None)
        return min((limit for limit in limits if limit is not None), default=_NO_LIMIT)


def evaluate(config: Config, session: Session | None = None) -> Facts:
    """Measure the packed model and its original: texts, multiple choice, prompts; write facts and a report."""
    assembly.prepare_process(config)
    folder, directory = packed_folder(config)
    console, inputs = open_console(config.quiet), read_inputs(config)
    if directory is None and config.evaluate.text is None and not _has_any(inputs):
        raise ConfigError(
            "An artefact alone has no held-out text. Name some: `evaluate.text=FILE`, `evaluate.texts=[FILE]`, "
            "`evaluate.choices=[FILE]` or `evaluate.prompts=[FILE]`."
        )
    models, rows = _load(config, folder, directory, session or Session(config))
    _check_limits(config, models)
    if models.not_compared is not None:
        console.print(f"note: not compared with another model: {models.not_compared}", soft_wrap=True)
    facts: Facts = {"texts": [], "choices": [], "prompts": []}
    _score_held_out(config, models, rows, facts, console)
    facts |= _speeds(config, models)
    console.print(f"Greedy decoding: {describe_speeds(facts)}.", markup=False, soft_wrap=True)
    for path, text in inputs.texts.items():
        score = _score(models, assembly.score_windows(config, models.tokenizer, text), path.stem)
        _keep(facts, "texts", {**score, **_windows(config)}, console)
    for path, questions in inputs.questions.items():
        _keep(facts, "choices", {"name": path.stem, **_ask(models, questions)}, console)
    for path, prompts in inputs.prompts.items():
        _keep(facts, "prompts", {"name": _stem(path), **_write(config, models, prompts)}, console)
    facts |= {"against": _described(models), "not_compared": models.not_compared}
    return _finish(config, directory, folder, facts, console)


def read_inputs(config: Config) -> Inputs:
    """Read every file that `evaluate` names; ConfigError or DataError says which is missing or wrong, and where."""
    settings = config.evaluate
    if settings.text is not None and not Path(settings.text).is_file():
        raise ConfigError(f"`evaluate.text={settings.text}`: there is no such file.")
    return Inputs(
        {Path(name): _read_text(Path(name)) for name in settings.texts},
        {Path(name): spread(read_questions(name), settings.max_questions) for name in settings.choices},
        {Path(name): read_prompts(name, settings.num_prompts) for name in settings.prompts},
    )


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"`evaluate.texts={path}`: there is no such file.")
    return path.read_text(encoding="utf-8", errors="replace")


def _has_any(inputs: Inputs) -> bool:
    return bool(inputs.texts or inputs.questions or inputs.prompts)


def _load(
    config: Config, folder: Path, directory: RunDirectory | None, session: Session
) -> tuple[Models, dict[str, Tensor] | None]:
    """Return the models, and the held-out rows where the run or `evaluate.text` has some."""
    tokenizer, settings = load_tokenizer(folder), config.evaluate
    data = session.data(directory) if directory is not None and settings.text is None else None
    original, reason = _original(config, directory, tokenizer, session)
    student = session.packed(folder)
    has_rows = data is not None or settings.text is not None
    rows = assembly.held_out_rows(config, tokenizer, data) if has_rows else None
    return Models(folder, student, tokenizer, original, reason), rows


def _original(
    config: Config, directory: RunDirectory | None, tokenizer: PreTrainedTokenizerBase, session: Session
) -> tuple[LoadedModel | None, str | None]:
    """Return the model to compare with, or why there is none."""
    against = config.evaluate.against
    if against == NO_MODEL:
        return None, f"`evaluate.against={NO_MODEL}`."
    if against is not None:
        return _with_same_tokens(load_pretrained(against), tokenizer), None
    if directory is None:
        return None, "an artefact alone does not have its original. Name it: `evaluate.against=MODEL`."
    try:
        return session.original(), None
    except BitnetTrainError as error:
        return None, str(error)


def _speeds(config: Config, models: Models) -> Facts:
    """Time greedy decoding of the packed model and, where it is there, of the one it is compared with."""
    prompt = models.tokenizer(config.generate.prompt)["input_ids"]
    original = None if models.teacher is None else original_speed(models.teacher, prompt)
    return {"decode": packed_speed(models.folder, models.student, prompt), "decode_original": original}


def _with_same_tokens(original: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    if original.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"`evaluate.against={original.source}` has another vocabulary than the packed model, so neither "
            "perplexities nor predictions compare. Name the model that it was made from."
        )
    return original


def _check_limits(config: Config, models: Models) -> None:
    context, settings = models.context_tokens, config.evaluate
    for name, value in (("window_tokens", settings.window_tokens), ("prompt_new_tokens", settings.prompt_new_tokens)):
        if value is not None and value > context - (name == "prompt_new_tokens"):
            raise ConfigError(f"`evaluate.{name}={value}` does not fit the {context} positions of the model. Lower it.")


def _score_held_out(
    config: Config, models: Models, rows: dict[str, Tensor] | None, facts: Facts, console: Console
) -> None:
    """Score the held-out rows; their figures of the packed model stand at the top of the facts too."""
    if rows is None:
        return
    text = config.evaluate.text
    score = _score(models, rows, "held-out" if text is None else Path(text).stem)
    facts |= {name: score["student"][name] for name in ("nats", "perplexity", "tokens")}
    windows = {"window_tokens": rows["input_ids"].shape[1], "window_overlap": None} if text is None else {}
    _keep(facts, "texts", {**score, **_windows(config), **windows, "held_out": text is None}, console)


def _score(models: Models, rows: dict[str, Tensor], name: str) -> Facts:
    return {"name": name, **compare(models.student, models.teacher, rows, description=name).to_dict()}


def _windows(config: Config) -> Facts:
    length = config.evaluate.window_tokens or config.data.context_tokens
    return {"window_tokens": length, "window_overlap": config.evaluate.window_overlap, "held_out": False}


def _ask(models: Models, questions: list[Question]) -> Facts:
    scores = [
        answer(model, models.tokenizer, questions, models.context_tokens, description=f"multiple choice, {name}")
        for name, model in (("1-bit", models.student), ("original", models.teacher))
        if model is not None
    ]
    return report(questions, scores[0], scores[1] if scores[1:] else None)


def _write(config: Config, models: Models, prompts: list[Prompt]) -> Facts:
    reason = reason_to_skip(prompts, models.tokenizer)
    if reason is not None:
        return {"kind": prompts[0].kind, "skipped": reason}
    settings = config.evaluate
    room = models.context_tokens - settings.prompt_new_tokens
    limits = Limits(min(room, settings.prompt_tokens or room), settings.prompt_new_tokens)
    uses_torch = config.generate.engine == "hf"
    student = (
        torch_writer(models.student, models.tokenizer)
        if uses_torch
        else packed_writer(models.folder, models.student, models.tokenizer, config.generate.threads)
    )
    writers = {"student": student}
    if models.teacher is not None:
        writers["teacher"] = torch_writer(models.teacher, models.tokenizer)
    return side_by_side(
        prompts,
        models.tokenizer,
        writers,
        limits,
        description=f"writing, {prompts[0].kind}",
        chat_template_variables=config.data.chat_template_variables,
    )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _described(models: Models) -> Facts | None:
    if models.original is None:
        return None
    return {"source": models.original.source, "description": models.original.description}


def _keep(facts: Facts, group: str, result: Facts, console: Console) -> None:
    facts[group].append(result)
    console.print(spoken(group, result), markup=False, soft_wrap=True)


def _finish(config: Config, directory: RunDirectory | None, folder: Path, facts: Facts, console: Console) -> Facts:
    """Write the facts and the report where they belong."""
    target = Path(config.evaluate.report) if config.evaluate.report else directory.root if directory else None
    if target is not None:
        facts["report"] = write_report({**facts, "subject": _subject(config, folder)}, target)
        console.print(f"Report: {facts['report']['html']}", markup=False, soft_wrap=True)
    return directory.write_facts("evaluate", facts) if directory is not None else facts


def _subject(config: Config, folder: Path) -> str:
    return config.recipe if config.recipe not in ("none", folder.name) else folder.absolute().name
