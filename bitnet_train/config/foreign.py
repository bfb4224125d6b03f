"""What other tools call our keys: transformers' Trainer, TRL, PEFT, Axolotl, LLaMA-Factory, litgpt, nanoGPT, llama.cpp.

One table: their names, our key, and what else differs (another unit, another idea). A name that has become a key of
ours is never looked up here. A row without a key says why there is none.
"""

from __future__ import annotations

from functools import cache

_ROWS: tuple[tuple[str, str | None, str], ...] = (
    ("lr learning_rate max_lr peak_lr", "optimizer.lr", ""),
    ("wd", "optimizer.weight_decay", ""),
    ("adam_beta1 adam_beta2 beta1 beta2", "optimizer.betas", "both in one list, `[0.9,0.95]`"),
    ("optim", "optimizer.name", ""),
    ("max_grad_norm grad_clip gradient_clip_val gradient_clipping clip_grad_norm", "optimizer.clip_norm", ""),
    ("lr_scheduler_type lr_scheduler scheduler", "schedule.lr", ""),
    ("warmup_ratio", "schedule.warmup_fraction", "a share of the steps there and here"),
    (
        "warmup_steps num_warmup_steps lr_warmup_steps warmup_iters warmup",
        "schedule.warmup_fraction",
        "a share of the steps: warm-up steps / `trainer.max_steps`",
    ),
    ("min_lr min_lr_ratio", "schedule.final_lr_fraction", "a share of the peak: last rate / `optimizer.lr`"),
    (
        "batch_size train_batch_size global_batch_size total_batch_size effective_batch_size",
        "trainer.batch_rows",
        "rows of a whole optimiser step; `trainer.micro_rows` are those of one forward pass",
    ),
    (
        "per_device_train_batch_size per_device_batch_size per_gpu_train_batch_size micro_batch_size",
        "trainer.micro_rows",
        "rows of one forward pass; `trainer.batch_rows` are those of a whole optimiser step, all devices together",
    ),
    (
        "gradient_accumulation_steps gradient_accumulation accumulate_grad_batches grad_accum grad_accumulation_steps",
        "trainer.batch_rows",
        "rows of a whole optimiser step, made in passes of `trainer.micro_rows`: accumulation steps * `micro_rows`",
    ),
    ("num_train_epochs num_epochs n_epochs epochs epoch", "trainer.max_epochs", ""),
    ("max_iters num_steps train_steps training_steps total_steps iterations num_iterations", "trainer.max_steps", ""),
    (
        "max_seq_length max_seq_len max_length seq_length seq_len sequence_length sequence_len block_size cutoff_len "
        "context_length model_max_length n_ctx ctx_size num_ctx",
        "data.context_tokens",
        "",
    ),
    ("output_dir out_dir output logging_dir save_path", "run.dir", ""),
    ("run_name wandb_run_name experiment_name", "run.name", ""),
    ("logging_steps log_interval log_every log_every_n_steps", "trainer.log_every_steps", ""),
    ("save_steps save_interval checkpoint_every", "trainer.save_every_steps", ""),
    ("eval_steps eval_interval val_check_interval", "trainer.validate_every_steps", "in optimiser steps"),
    ("save_total_limit save_top_k", "trainer.keep_last", ""),
    ("resume_from_checkpoint resume_from ckpt_path", "trainer.resume", "auto, or the folder of a checkpoint"),
    ("random_seed data_seed", "trainer.seed", ""),
    ("lora_r lora_rank r", "adapter.rank", ""),
    ("lora_alpha", "adapter.alpha", ""),
    ("lora_dropout", "adapter.dropout", ""),
    ("use_rslora", "adapter.rslora", ""),
    ("target_modules lora_target_modules lora_target", "model.include", "patterns of layer names, as a list"),
    ("bf16 fp16 tf32 mixed_precision torch_dtype amp", "trainer.precision", "as a word: fp32 or bf16"),
    ("model_name_or_path model_name model_id base_model pretrained_model_name_or_path", "model.source", ""),
    (
        "dataset dataset_name dataset_path dataset_id datasets data_path train_file train_files data_dir",
        "data.path",
        "",
    ),
    ("validation_file eval_file val_file eval_dataset", "data.validation_path", ""),
    ("dataset_text_field text_column text_key", "data.text_field", ""),
    ("dataset_config_name dataset_config", "data.name", ""),
    ("val_set_size test_size eval_split_ratio val_size", "data.validation_fraction", "a share of the rows"),
    ("validation_split_percentage", "data.validation_fraction", "a share of the rows: percent / 100"),
    ("max_samples max_train_samples num_samples", "data.max_documents", "whole documents; `data.max_train_rows` rows"),
    ("report_to use_wandb wandb log_with", "logger.kind", "wandb, tensorboard, mlflow, trackio, csv or none"),
    ("wandb_project project_name", "logger.project", ""),
    ("device use_cpu no_cuda", "trainer.accelerator", "auto, cpu or gpu"),
    ("gpus n_gpu num_gpus num_devices num_processes nproc_per_node", "trainer.devices", ""),
    ("n_threads", "trainer.num_threads", "of training; `generate.threads` of text"),
    ("teacher_model teacher_model_name_or_path", "teacher.source", ""),
    ("kd_temperature distill_temperature temp_kd", "loss.temperature", ""),
    ("n_predict num_predict max_output_tokens", "generate.max_new_tokens", ""),
    ("temp", "generate.temperature", ""),
    ("stop_sequences stop_words stop_strings stop_token reverse_prompt", "generate.stop", 'a list: `["\\n",END]`'),
    ("system_prompt", None, "it is the first turn of a chat, given with its messages"),
    ("hub_model_id push_to_hub_model_id", "export.push_to_hub", ""),
    ("hub_private_repo private", "export.hub_private", ""),
    ("outtype ftype", "export.type", "of a GGUF file"),
    ("bits w_bits wbits num_bits", "weight.planes", "of a binary weight; `bitnet-train ls weight` shows whole schemes"),
    ("a_bits abits", "activation.name", "int8, int4, sign or none"),
    ("nsamples num_calibration_samples calib_samples", "init.calibration_rows", "`blockwise.rows` of reconstruction"),
    ("num_workers dataloader_num_workers", None, "text is made into tokens once, before training: nothing to set"),
    ("gradient_checkpointing", "trainer.checkpointing", ""),
    ("load_in_4bit load_in_8bit", None, "latent weights train in float32; what they become is `weight`"),
    ("deepspeed fsdp", "trainer.strategy", ""),
)


@cache
def foreign_names() -> dict[str, tuple[str | None, str]]:
    """Return our key and what differs, by the name another tool uses."""
    return {name: (key, note) for names, key, note in _ROWS for name in names.split()}


def foreign_hint(given: str, value: str = "") -> str:
    """Return ` That is `KEY` here ...` for the last part of a name that other tools use, or nothing."""
    name = given.rpartition(".")[2].lstrip("-").replace("-", "_").lower()
    if name not in foreign_names():
        return ""
    key, note = foreign_names()[name]
    if key is None:
        return f" There is no such key here: {note}."
    return f" That is `{key}{f'={value}' if value and not note else ''}` here{f', {note}' if note else ''}."
