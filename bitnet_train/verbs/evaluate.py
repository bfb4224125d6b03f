"""`bitnet-train evaluate`: the packed model beside the model it was made from, as facts and as a report.

Files are read, and refused, before a model is loaded. What needs the original is left out with the reason where there
is none: an artefact alone, `evaluate.against=none`, or a source that cannot be loaded any more.

Processes that torchrun starts share the windows of texts (`evaluate.dealing`); all else the first does alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.bench import decode_speed
from bitnet_train.bench.speed import DecodeSpeed
from bitnet_train.config import Config
from bitnet_train.errors import BitnetTrainError, ConfigError, DataError
from bitnet_train.evaluate.comparison import ALONE, compare
from bitnet_train.evaluate.dealing import Dealing, together
from bitnet_train.evaluate.frontier import Frontier, read_frontier
from bitnet_train.evaluate.jsonl import spread
from bitnet_train.evaluate.measured import Choices, Comparison, Perplexity, Prompts, ScoredText
from bitnet_train.evaluate.multiple_choice import Question, answer, compare_answers, read_questions
from bitnet_train.evaluate.prompt_files import Prompt, read_prompts
from bitnet_train.evaluate.side_by_side import Limits, reason_to_skip, side_by_side
from bitnet_train.evaluate.writers import packed_writer, torch_writer
from bitnet_train.importers.load import LoadedModel, load_pretrained
from bitnet_train.model.config_fields import max_positions
from bitnet_train.progress import open_console
from bitnet_train.report.evaluate_facts import Against, EvaluateFacts
from bitnet_train.report.lines import describe_speeds, spoken
from bitnet_train.report.write import write_report
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory, packed_folder
from bitnet_train.run.ranks import can_connect
from bitnet_train.run.report import REPORT_FILE
from bitnet_train.run.session import Session
from bitnet_train.run.tracked import tell
from bitnet_train.runtime.load import load_tokenizer
from bitnet_train.train.data.module import BitDataModule

__all__ = ["evaluate"]

NO_MODEL = "none"  # of `evaluate.against`
_NO_LIMIT = 1 << 30
Result = TypeVar("Result", ScoredText, Choices, Prompts)


@dataclass(frozen=True)
class Inputs:
    """What the configured files hold, by file."""

    texts: dict[Path, str]
    questions: dict[Path, list[Question]]
    prompts: dict[Path, list[Prompt]]
    frontier: Frontier | None


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


def evaluate(config: Config, session: Session | None = None) -> EvaluateFacts:
    """Measure the packed model and its original: texts, multiple choice, prompts; write facts and a report."""
    assembly.prepare_process(config)
    folder, directory = packed_folder(config)
    console, inputs = open_console(config.quiet), read_inputs(config)
    if directory is None and not _has_any(inputs):
        raise ConfigError(
            "An artefact alone has no held-out text. Name some: `evaluate.texts=[FILE]`, `evaluate.choices=[FILE]` or "
            "`evaluate.prompts=[FILE]`."
        )
    models, rows = _load(config, folder, directory, session or Session(config))
    _check_limits(config, models)
    if models.not_compared is not None:
        console.print(f"note: not compared with another model: {models.not_compared}", soft_wrap=True)
    with _processes(session is None) as dealing:
        if dealing.number > 1:
            console.print(f"{dealing.number} processes share the texts.")
        texts = [] if rows is None else [_told(_score_held_out(models, rows, dealing), console)]
        for path, text in inputs.texts.items():
            texts.append(_told(_score_text(config, models, path, text, dealing), console))
    if dealing.rank > 0:
        raise SystemExit(0)
    speed, original = _speeds(config, models)
    console.print(f"Greedy decoding: {describe_speeds(speed, original)}.", markup=False, soft_wrap=True)
    choices = [_told(_ask(models, path.stem, asked), console) for path, asked in inputs.questions.items()]
    prompts = [_told(_write(config, models, _stem(path), given), console) for path, given in inputs.prompts.items()]
    facts = EvaluateFacts(
        texts=tuple(texts),
        choices=tuple(choices),
        prompts=tuple(prompts),
        held_out=_perplexity(texts[0]) if rows is not None else None,
        decode=speed,
        decode_original=original,
        against=_described(models),
        not_compared=models.not_compared,
        folder_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        frontier=inputs.frontier,
    )
    tell(facts, config, directory, session)
    return _finish(config, directory, folder, facts, console)


def _processes(is_whole: bool) -> AbstractContextManager[Dealing]:
    """Return the processes that share the texts; within another verb the first is alone by now."""
    return together() if is_whole and can_connect() else nullcontext(ALONE)


def read_inputs(config: Config) -> Inputs:
    """Read every file that `evaluate` names; ConfigError or DataError says which is missing or wrong, and where."""
    settings = config.evaluate
    return Inputs(
        {Path(name): _read_text(Path(name)) for name in settings.texts},
        {Path(name): spread(read_questions(name), settings.max_questions) for name in settings.choices},
        {Path(name): read_prompts(name, settings.num_prompts) for name in settings.prompts},
        None if settings.frontier is None else read_frontier(settings.frontier),
    )


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"`evaluate.texts={path}`: there is no such file.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`evaluate.texts={path}` cannot be read as UTF-8 text: {error}.") from error


def _has_any(inputs: Inputs) -> bool:
    return bool(inputs.texts or inputs.questions or inputs.prompts)


def _load(
    config: Config, folder: Path, directory: RunDirectory | None, session: Session
) -> tuple[Models, dict[str, Tensor] | None]:
    """Return the models, and the held-out rows of the run, if there is one."""
    tokenizer = load_tokenizer(folder)
    data = session.data(directory) if directory is not None else None
    original, reason = _original(config, directory, tokenizer, session)
    student = session.packed(folder)
    return Models(folder, student, tokenizer, original, reason), _held_out(config, data)


def _held_out(config: Config, data: BitDataModule | None) -> dict[str, Tensor] | None:
    """Return the held-out rows; None for an artefact alone, and where nothing is held out but texts are named."""
    if data is None or (config.evaluate.texts and len(data.validation_rows()["input_ids"]) == 0):
        return None
    return assembly.held_out_rows(config, data)


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


def _speeds(config: Config, models: Models) -> tuple[DecodeSpeed, DecodeSpeed | None]:
    """Time greedy decoding of the packed model and, where it is there, of the one it is compared with.

    Both write as many tokens as `generate` would, and no more than it takes for a figure.
    """
    prompt = models.tokenizer(config.generate.prompt)["input_ids"]
    length = min(decode_speed.NEW_TOKENS, config.generate.max_new_tokens)
    packed = decode_speed.packed_speed(models.folder, models.student, prompt, new_tokens=length)
    if models.teacher is None:
        return packed, None
    return packed, decode_speed.original_speed(models.teacher, prompt, new_tokens=length)


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


def _score_held_out(models: Models, rows: dict[str, Tensor], dealing: Dealing) -> ScoredText:
    """Score the held-out rows of the run."""
    name, length = "held-out", rows["input_ids"].shape[1]
    return ScoredText(name, _compare(models, rows, name, dealing), length, window_overlap=None, held_out=True)


def _score_text(config: Config, models: Models, path: Path, text: str, dealing: Dealing) -> ScoredText:
    rows = assembly.score_windows(config, models.tokenizer, text)
    return ScoredText(path.stem, _compare(models, rows, path.stem, dealing), *_windows(config))


def _compare(models: Models, rows: dict[str, Tensor], name: str, dealing: Dealing) -> Comparison:
    return compare(models.student, models.teacher, rows, description=name, dealing=dealing)


def _windows(config: Config) -> tuple[int, bool]:
    """Return the tokens of a window, and whether windows overlap."""
    return config.evaluate.window_tokens or config.data.context_tokens, config.evaluate.window_overlap


def _perplexity(text: ScoredText) -> Perplexity:
    score = text.compared.student
    return Perplexity(score.nats, score.perplexity, score.tokens)


def _ask(models: Models, name: str, questions: list[Question]) -> Choices:
    scores = [
        answer(model, models.tokenizer, questions, models.context_tokens, description=f"multiple choice, {role}")
        for role, model in (("1-bit", models.student), ("original", models.teacher))
        if model is not None
    ]
    return compare_answers(name, questions, scores[0], scores[1] if scores[1:] else None)


def _write(config: Config, models: Models, name: str, prompts: list[Prompt]) -> Prompts:
    reason = reason_to_skip(prompts, models.tokenizer)
    if reason is not None:
        return Prompts(name, prompts[0].kind, skipped=reason)
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
    written = side_by_side(
        prompts,
        models.tokenizer,
        writers,
        limits,
        description=f"writing, {prompts[0].kind}",
        chat_template_variables=config.data.chat_template_variables,
    )
    return Prompts(name, prompts[0].kind, written=written)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _described(models: Models) -> Against | None:
    return None if models.original is None else Against(models.original.source, models.original.description)


def _told(result: Result, console: Console) -> Result:
    """Say what was measured as soon as it is known, and pass it on."""
    console.print(spoken(result), markup=False, soft_wrap=True)
    return result


def _finish(
    config: Config, directory: RunDirectory | None, folder: Path, facts: EvaluateFacts, console: Console
) -> EvaluateFacts:
    """Write the facts and the report where they belong; that of a run holds what was measured too."""
    target = Path(config.evaluate.report) if config.evaluate.report else directory.root if directory else None
    shown = ""
    if target is not None:
        paths = write_report(facts, _subject(config, folder), target)
        facts, shown = replace(facts, report=paths), paths["html"]
    if directory is not None:
        facts = directory.keep(facts)
        shown = shown if config.evaluate.report else str(directory.root / REPORT_FILE)
    if shown:
        console.print(f"Report: {shown}", markup=False, soft_wrap=True)
    return facts


def _subject(config: Config, folder: Path) -> str:
    return config.recipe if config.recipe not in ("none", folder.name) else folder.absolute().name
