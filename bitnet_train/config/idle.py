"""Keys without effect: THE table of what is not read in which setting, and what to do about it.

Someone who sets a key wants something. Where other keys make it idle, training would go on without a word and without
what was wanted, so a key on the command line is refused, and one in a recipe file of the user's own is named: a copied
recipe may hold keys of a setting that the command line replaces. Bundled recipes and saved runs may hold idle keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bitnet_train.config.check import value_of
from bitnet_train.config.layout import label, recipes
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.target import Target
from bitnet_train.config.values import COMMAND_LINE
from bitnet_train.errors import ConfigError


@dataclass(frozen=True)
class Idle:
    """One row: `keys` (a name that ends with a dot stands for all keys below) have no effect where `holds`."""

    keys: tuple[str, ...]
    holds: Callable[[Config], bool]
    what_to_do: str


def own_recipe(target: Target) -> str | None:
    """Return the label of the recipe file that a call names, unless it is a bundled one."""
    bundled = {label(path) for path in recipes().values()}
    return target.label if target.kind == "recipe" and target.label not in bundled else None


def refuse_idle_keys(
    config: Config, origins: dict[str, str], target: Target, read_anyway: tuple[str, ...] = ()
) -> list[str]:
    """Raise `ConfigError` for a key of the command line that has no effect; return a note on each of an own recipe.

    `read_anyway` are the keys of rows that do not hold for the verb that was called.
    """
    notes, recipe = [], own_recipe(target)
    for name, row in _idle_keys(config, read_anyway):
        origin = origins.get(name)
        told = f"`{name}={value_of(config, name)}` ({origin}) has no effect: {row.what_to_do}"
        if origin == COMMAND_LINE:
            raise ConfigError(told)
        if origin is not None and origin == recipe:
            notes.append(told)
    return notes


def _idle_keys(config: Config, read_anyway: tuple[str, ...]) -> Iterator[tuple[str, Idle]]:
    for row in IDLE:
        names = [name for name in known_keys() for key in row.keys if _names(key, name)]
        if row.holds(config) and not set(row.keys) <= set(read_anyway):
            yield from ((name, row) for name in names if value_of(config, name) is not None)


def _names(key: str, name: str) -> bool:
    return name.startswith(key) and name != "blockwise.enabled" if key.endswith(".") else name == key


def _reads_files(config: Config) -> bool:
    return config.data.source == "files"


def _compares(config: Config) -> bool:
    loss = config.loss
    return loss.kl + loss.reverse_kl + loss.hidden + loss.attention > 0


def _calibrates(config: Config) -> bool:
    init = config.init
    return init.scales != "absmean" or init.latents != "copy" or init.equalise or config.weight.sub_norm


def _groups(config: Config) -> bool:
    return any(part.get("granularity") == "group" or "group_size" in part for part in config.weight.overrides)


IDLE: tuple[Idle, ...] = (
    Idle(
        ("data.path",),
        lambda c: c.data.source == "stdlib",
        "`data.source=stdlib` reads the standard library. Drop `data=stdlib`, or set `data.source=files`.",
    ),
    Idle(
        ("data.path", "data.validation_path"),
        lambda c: bool(c.data.mix),
        "`data.mix` names the files. Make it an entry of that, or set `data.mix=[]`.",
    ),
    Idle(
        ("data.mix",),
        lambda c: bool(c.data.mix) and not _reads_files(c),
        "`data.source=stdlib` reads the standard library. Set `data.source=files`.",
    ),
    Idle(
        ("data.validation_path",),
        lambda c: not _reads_files(c),
        "it belongs to `data.source=files`; of a data set of the hub set `data.validation_split`.",
    ),
    Idle(
        ("data.name", "data.split", "data.validation_split"),
        lambda c: c.data.source != "hub",
        "it belongs to `data.source=hub`; of files say which with `data.path` and `data.validation_path`.",
    ),
    Idle(
        ("data.validation_fraction",),
        lambda c: (
            c.data.source == "stdlib"
            or (_reads_files(c) and c.data.validation_path is not None)
            or (c.data.source == "hub" and c.data.validation_split is not None)
        ),
        "what is held out is given already. Drop it, or `data.validation_path` or `data.validation_split`.",
    ),
    Idle(("data.self_corpus.",), lambda c: c.data.source != "self", "it belongs to `data.source=self`."),
    Idle(
        ("data.self_corpus.prompt_tokens",),
        lambda c: c.data.path is None,
        "there are no prompts. Give texts with `data.path`.",
    ),
    Idle(
        ("data.text_field", "data.messages_field", "data.prompt_field", "data.input_field", "data.answer_field"),
        lambda c: c.data.source == "stdlib" or (c.data.source == "self" and c.data.path is None),
        "no rows with fields are read. Give `data.path`.",
    ),
    Idle(
        ("data.text_field",),
        lambda c: c.data.kind not in ("auto", "text"),
        "`data.kind` says that rows are no plain text. Set `data.kind=text`.",
    ),
    Idle(("data.messages_field",), lambda c: c.data.kind not in ("auto", "chat"), "set `data.kind=chat`."),
    Idle(("data.prompt_field", "data.answer_field"), lambda c: c.data.kind == "text", "set `data.kind=instruction`."),
    Idle(("data.input_field",), lambda c: c.data.kind not in ("auto", "instruction"), "set `data.kind=instruction`."),
    Idle(
        ("data.system_field",),
        lambda c: c.data.kind in ("text", "completion"),
        "plain text and raw completions have no system prompt. Set `data.kind` to chat or instruction.",
    ),
    Idle(
        ("data.chat_template_variables",),
        lambda c: bool(c.data.chat_template_variables) and c.data.kind in ("text", "completion"),
        "`data.kind` says that no chat template is used. Set it to chat or instruction.",
    ),
    Idle(
        ("data.min_tokens",),
        lambda c: c.data.kind not in ("auto", "text"),
        "it drops short windows of plain text; a chat or an instruction is one row, however short.",
    ),
    Idle(
        ("loss.temperature",),
        lambda c: c.loss.kl + c.loss.reverse_kl == 0,
        "it belongs to `loss.kl` and `loss.reverse_kl`, which are 0.",
    ),
    Idle(("loss.attention_layer",), lambda c: c.loss.attention == 0, "`loss.attention` is 0."),
    Idle(
        ("loss.hidden_balance", "loss.balance_step"),
        lambda c: c.loss.hidden + c.loss.attention == 0,
        "`loss.hidden` and `loss.attention` are 0, so nothing is balanced.",
    ),
    Idle(("loss.balance_step",), lambda c: not c.loss.hidden_balance, "set `loss.hidden_balance=true`."),
    Idle(
        ("teacher.source", "teacher.cache", "teacher.products"),
        lambda c: not _compares(c),
        "nothing is compared with a teacher. Set `loss.kl` above 0.",
    ),
    Idle(("teacher.top_k",), lambda c: c.teacher.cache != "topk", "set `teacher.cache=topk`."),
    Idle(("teacher.cache_dir",), lambda c: c.teacher.cache == "none", "set `teacher.cache=states`."),
    Idle(
        ("schedule.final_lr_fraction",),
        lambda c: c.schedule.lr == "constant",
        "`schedule.lr=constant` stays at its peak.",
    ),
    Idle(("schedule.decay_fraction",), lambda c: c.schedule.lr != "wsd", "set `schedule.lr=wsd`."),
    Idle(
        ("schedule.soft_fraction",),
        lambda c: c.schedule.hardness == "hard",
        "`schedule.hardness=hard` is hard from the first step.",
    ),
    Idle(
        ("schedule.tanh_start", "schedule.tanh_end"),
        lambda c: c.schedule.hardness != "tanh",
        "set `schedule.hardness=tanh`.",
    ),
    Idle(("optimizer.reach",), lambda c: c.optimizer.lr != "auto", "set `optimizer.lr=auto`."),
    Idle(
        ("trainer.max_steps",),
        lambda c: any(
            length is not None for length in (c.trainer.max_tokens, c.trainer.max_epochs, c.trainer.max_minutes)
        ),
        "`trainer.max_tokens`, `trainer.max_epochs` or `trainer.max_minutes` sets the steps. Set that to null.",
    ),
    Idle(
        ("trainer.short_row_fraction",), lambda c: c.trainer.short_row_tokens is None, "set `trainer.short_row_tokens`."
    ),
    Idle(("trainer.divergence_steps",), lambda c: c.trainer.divergence_nats is None, "set `trainer.divergence_nats`."),
    Idle(
        ("logger.project", "logger.name", "logger.group", "logger.tags"),
        lambda c: c.logger.kind not in ("wandb", "mlflow", "trackio"),
        "it belongs to `logger=wandb`, `logger=mlflow` and `logger=trackio`.",
    ),
    Idle(("logger.mode",), lambda c: c.logger.kind != "wandb", "it belongs to `logger=wandb`."),
    Idle(
        ("logger.uri",),
        lambda c: c.logger.kind not in ("mlflow", "trackio"),
        "it belongs to `logger=mlflow` and `logger=trackio`.",
    ),
    Idle(
        ("logger.upload",),
        lambda c: c.logger.kind not in ("wandb", "mlflow"),
        "it belongs to `logger=wandb` and `logger=mlflow`.",
    ),
    Idle(
        ("weight.group_size",),
        lambda c: c.weight.granularity != "group" and not _groups(c),
        "set `weight.granularity=group`.",
    ),
    Idle(
        ("weight.clip",),
        lambda c: c.weight.estimator == "identity",
        "`weight.estimator=identity` passes every gradient. Set `weight.estimator=clipped`.",
    ),
    Idle(
        ("adapter.rank", "adapter.alpha", "adapter.rslora"),
        lambda c: c.adapter.kind in ("none", "scales_only"),
        "there are no low-rank factors. Set `adapter=lora_inside`.",
    ),
    Idle(("init.damping",), lambda c: c.init.latents != "error_feedback", "set `init.latents=error_feedback`."),
    Idle(
        ("init.calibration_rows",),
        lambda c: not _calibrates(c),
        "nothing is measured on calibration text. Choose `init=als` or `init=error_feedback`.",
    ),
    Idle(("blockwise.",), lambda c: not c.blockwise.enabled, "set `blockwise=on`."),
    Idle(
        ("evaluate.window_tokens", "evaluate.window_overlap"),
        lambda c: not c.evaluate.texts,
        "it cuts text files. Name one with `evaluate.texts=[FILE]`.",
    ),
    Idle(("evaluate.max_questions",), lambda c: not c.evaluate.choices, "name a file with `evaluate.choices=[FILE]`."),
    Idle(
        ("evaluate.num_prompts", "evaluate.prompt_new_tokens", "evaluate.prompt_tokens"),
        lambda c: not c.evaluate.prompts,
        "name a file with `evaluate.prompts=[FILE]`.",
    ),
    Idle(
        ("generate.top_k", "generate.top_p", "generate.min_p", "generate.typical_p", "generate.seed"),
        lambda c: c.generate.temperature == 0,
        "`generate.temperature=0` takes the likeliest token. Set it above 0.",
    ),
    Idle(
        ("generate.threads", "generate.cache_dtype"),
        lambda c: c.generate.engine == "hf",
        "it belongs to the native engine.",
    ),
    Idle(
        ("sensitivity.extra_share",), lambda c: c.sensitivity.extra_mb is not None, "`sensitivity.extra_mb` is given."
    ),
    Idle(("bench.llama_bench",), lambda c: c.bench.gguf is None, "name a file with `bench.gguf`."),
    Idle(("chat.against",), lambda c: not c.chat.beside, "one model answers. Add `--beside`, or `chat.beside=true`."),
    Idle(("debug.every_steps",), lambda c: not c.debug.enabled, "set `debug.enabled=true`."),
    Idle(("run.root", "run.name"), lambda c: c.run.dir is not None, "`run.dir` says where the run lies."),
)
