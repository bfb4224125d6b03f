"""Values that contradict each other, as a table that the tests run over; what one key may be its setting says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitnet_train.config.objects import ALLOWED_PREFIXES, is_allowed
from bitnet_train.config.schema import Config

Rule = tuple[str, Callable[[Config], bool], str]


def _has_processes(config: Config) -> bool:
    return config.trainer.devices > 1


def _makes_a_start(config: Config) -> bool:
    init = config.init
    return config.blockwise.enabled or init.equalise or init.scales != "absmean" or init.latents != "copy"


def _codes(config: Config) -> tuple[str, int]:
    return config.weight.name, config.weight.planes


def _leaves_root(name: str | None) -> bool:
    return name is not None and (not Path(name).parts or Path(name).is_absolute() or ".." in Path(name).parts)


RULES: tuple[Rule, ...] = (
    (
        "run.name",
        lambda c: c.run.dir is None and _leaves_root(c.run.name),
        "names no folder inside `run.root`. Give a name, such as first_try, or another place as `run.dir`.",
    ),
    (
        "adapter.dropout",
        lambda c: c.adapter.kind != "lora_outside" and c.adapter.dropout > 0,
        "needs `adapter.kind=lora_outside`: inside the quantiser a dropped input would change the codes. "
        "Set `adapter.dropout=0`.",
    ),
    (
        "adapter.alpha",
        lambda c: c.adapter.alpha == 0 and c.adapter.kind in ("lora_inside", "lora_outside"),
        "switches the low-rank factors off, which then learn nothing. It must be above 0.",
    ),
    (
        "weight.input_scale",
        lambda c: (
            c.weight.input_scale
            and (*_codes(c), c.weight.granularity, c.weight.learnable_scale) != ("binary", 1, "row", True)
        ),
        "splits |W| into a scale per row and one per input. Set `weight=binary_row weight.learnable_scale=true "
        "weight.planes=1`.",
    ),
    (
        "weight.overrides",
        lambda c: c.weight.input_scale and bool(c.weight.overrides),
        "gives layers schemes of their own, and `weight.input_scale` knows one. Drop either.",
    ),
    (
        "weight.budget_mb",
        lambda c: c.weight.budget_mb is not None and (c.weight.name != "binary" or c.weight.input_scale),
        "chooses planes of binary weights, and `weight.input_scale` knows one. Set `weight.name=binary "
        "weight.input_scale=false`, or drop it.",
    ),
    (
        "adapter.kind",
        lambda c: c.adapter.kind == "scales_only" and not c.weight.learnable_scale,
        "trains the scales, which are fixed. Set `weight.learnable_scale=true`.",
    ),
    (
        "trainer.micro_rows",
        lambda c: c.trainer.micro_rows > c.trainer.batch_rows,
        "is more than the rows of a step. Lower it to `trainer.batch_rows` or below.",
    ),
    (
        "trainer.products",
        lambda c: c.trainer.compile and c.trainer.products in ("forward", "integer"),
        "multiplies in kernels of its own, which `torch.compile` cannot join. Set `trainer.products=float` or "
        "`trainer.compile=false`.",
    ),
    (
        "schedule.hardness",
        lambda c: c.schedule.hardness == "tanh" and c.weight.estimator != "tanh",
        "hardens a tanh estimator. Set `weight.estimator=tanh`, or `schedule.hardness` to lambda or hard.",
    ),
    (
        "schedule.hardness",
        lambda c: c.schedule.hardness == "lambda" and c.weight.estimator == "tanh",
        "mixes latent and quantised weights, which the tanh estimator does not. "
        "Set `weight.estimator` to identity or clipped, or `schedule.hardness=tanh`.",
    ),
    (
        "schedule.tanh_start",
        lambda c: c.schedule.tanh_start > c.schedule.tanh_end,
        "is above `schedule.tanh_end`: the quantiser hardens, it does not soften.",
    ),
    (
        "adapter.latent_shrink",
        lambda c: (
            (c.adapter.latent_shrink != 1 or c.adapter.equal_latents)
            and (c.adapter.kind, *_codes(c), c.weight.learnable_scale) != ("lora_inside", "binary", 1, True)
        ),
        "and `adapter.equal_latents` move latents whose codes and scales stay. They need `adapter.kind=lora_inside`, "
        "`weight.name=binary`, `weight.planes=1` and `weight.learnable_scale=true`; else leave them at 1 and false.",
    ),
    (
        "init.scales",
        lambda c: c.init.scales == "als" and not c.weight.learnable_scale,
        "fits scales, and fixed ones are mean|W|. Set `weight.learnable_scale=true`.",
    ),
    (
        "init.latents",
        lambda c: c.init.latents == "error_feedback" and not c.weight.learnable_scale,
        "fits scales too, and fixed ones are mean|W|. Set `weight.learnable_scale=true`.",
    ),
    (
        "weight.input_scale",
        lambda c: c.weight.input_scale and _makes_a_start(c),
        "starts from its own split of |W|. Choose `init=plain blockwise=off`.",
    ),
    (
        "weight.sub_norm",
        lambda c: c.weight.sub_norm and (c.weight.input_scale or _makes_a_start(c)),
        "changes layers that `weight.input_scale`, `init` and `blockwise` change too. Switch those off, "
        "`init=plain blockwise=off`, or leave it false.",
    ),
    (
        "loss.kl",
        lambda c: c.loss.kl == c.loss.reverse_kl == c.loss.ce == c.loss.hidden == c.loss.attention == 0,
        "leaves nothing to lower, as `loss.reverse_kl`, `loss.ce`, `loss.hidden` and `loss.attention` are 0 too. Set "
        "one of them above 0.",
    ),
    (
        "teacher.cache",
        lambda c: (
            c.teacher.cache == "topk" and (c.loss.kl == 0 or c.loss.reverse_kl + c.loss.hidden + c.loss.attention > 0)
        ),
        "keeps what `loss.kl` needs and no more. Set `loss.kl` above 0 and `loss.reverse_kl`, `loss.hidden` and "
        "`loss.attention` to 0, or `teacher.cache=none`.",
    ),
    (
        "teacher.cache",
        lambda c: c.teacher.cache == "states" and c.loss.hidden + c.loss.attention > 0,
        "keeps what terms over logits need and no more. Set `loss.hidden` and `loss.attention` to 0, or "
        "`teacher.cache=none`.",
    ),
    (
        "teacher.products",
        lambda c: c.teacher.products == "int8" and (c.teacher.cache != "none" or c.loss.attention > 0),
        "rounds the products that `loss.attention` listens to and `teacher.cache` keeps. Set `loss.attention=0 "
        "teacher.cache=none`, or `teacher.products=auto`.",
    ),
    (
        "optimizer.lr",
        lambda c: c.optimizer.lr == "auto" and c.adapter.kind != "none",
        "follows the size of the latents, which train with `adapter.kind=none` only. Give a number.",
    ),
    (
        "trainer.max_minutes",
        lambda c: c.trainer.max_minutes is not None and _has_processes(c),
        "is timed by each process for itself, and they would disagree about the steps. Set `trainer.max_tokens`.",
    ),
    (
        "weight.budget_mb",
        lambda c: c.weight.budget_mb is not None and _has_processes(c),
        "chooses planes in one process, and this run has more. Train on one device, or give what it chose there, the "
        "`overrides` in its facts/planes.json, as `weight.overrides`.",
    ),
    (
        "blockwise.enabled",
        lambda c: _has_processes(c) and _makes_a_start(c),
        "or `init` makes the start of the run in one process, and this run has more. Train on one device, or choose "
        "`init=plain blockwise=off`.",
    ),
    (
        "trainer.short_row_tokens",
        lambda c: c.data.context_tokens % (c.trainer.short_row_tokens or 1) != 0,
        "does not cut rows of `data.context_tokens` into equal pieces. Use a half or a quarter of it, or null.",
    ),
    (
        "blockwise.row_tokens",
        lambda c: c.data.context_tokens % (c.blockwise.row_tokens or 1) != 0,
        "cuts rows of `data.context_tokens` into equal pieces, so it must divide that.",
    ),
    (
        "trainer.max_tokens",
        lambda c: c.trainer.max_tokens is not None and c.trainer.max_minutes is not None,
        "and `trainer.max_minutes` both say how long the run is. Set one to null.",
    ),
    (
        "trainer.validate_every_steps",
        lambda c: (c.trainer.keep_best or c.trainer.patience is not None) and c.trainer.validate_every_steps == 0,
        "gives `trainer.keep_best` and `trainer.patience` no figure to go by. Set it above 0, or drop them.",
    ),
    (
        "trainer.max_epochs",
        lambda c: c.trainer.max_epochs is not None and (c.trainer.max_tokens or c.trainer.max_minutes) is not None,
        "and `trainer.max_tokens` or `trainer.max_minutes` both say how long the run is. Set the other to null.",
    ),
    (
        "data.path",
        lambda c: c.data.source in ("files", "hub") and not c.data.path and not c.data.mix,
        "is missing: `data.source` files needs a file or a folder, hub a dataset id. Add `data.path=...`.",
    ),
    (
        "data.mix",
        lambda c: bool(c.data.mix) and c.data.source not in ("files", "stdlib"),
        "mixes files, and `data.source` says otherwise. Set `data.source=files`.",
    ),
    (
        "data.mix",
        lambda c: bool(c.data.mix) and c.trainer.short_row_tokens is not None,
        "draws whole rows by their weights, and `trainer.short_row_tokens` cuts them. Set that to null.",
    ),
    (
        "data.min_tokens",
        lambda c: c.data.min_tokens > c.data.context_tokens,
        "is more than a row holds. Lower it to `data.context_tokens` or below.",
    ),
    (
        "data.self_corpus.document_tokens",
        lambda c: c.data.self_corpus.document_tokens < c.data.self_corpus.prompt_tokens + 2,
        "leaves nothing to write after the prompt: it must be at least `data.self_corpus.prompt_tokens` + 2.",
    ),
    (
        "model.roles",
        lambda c: not c.model.roles,
        "selects no layer. Name at least one of: attention, mlp, head, embedding.",
    ),
    (
        "export.embedding",
        lambda c: c.export.embedding != "exact" and not c.model.include and "embedding" in c.model.roles,
        "rounds a float embedding, but `model.roles` makes it 1-bit. Set `export.embedding=exact`, or take `embedding` "
        "out of `model.roles`.",
    ),
    (
        "export.modelfile",
        lambda c: c.export.modelfile and "gguf" not in (c.export.format, *c.export.also),
        "is written beside a GGUF alone. Add `export=gguf`, or leave it out.",
    ),
    (
        "export.head",
        lambda c: c.export.head != "exact" and not c.model.include and "head" in c.model.roles,
        "rounds a float head, but `model.roles` makes it 1-bit. Set `export.head=exact`, or take `head` out of "
        "`model.roles`.",
    ),
    (
        "generate.stop",
        lambda c: not all(c.generate.stop),
        "holds an empty string, and every text ends with that. Drop it.",
    ),
    (
        "generate.system",
        lambda c: c.generate.system is not None and not c.generate.chat and c.generate.messages is None,
        "is a message of a chat, and this is none. Set `generate.chat=true` too.",
    ),
    (
        "generate.prompt_cache",
        lambda c: c.generate.prompt_cache is not None and c.generate.engine == "hf",
        "is kept by the native engine alone. Set `generate.engine` to auto or native.",
    ),
    (
        "logger.custom",
        lambda c: (c.logger.kind == "custom") != bool(c.logger.custom),
        "and `logger.kind=custom` go together. Set both or neither.",
    ),
    (
        "logger.custom",
        lambda c: bool(c.logger.custom) and not is_allowed(c.logger.custom),
        f"may only build what starts with {' or '.join(ALLOWED_PREFIXES)} (its `_target_`, nested ones too).",
    ),
)
