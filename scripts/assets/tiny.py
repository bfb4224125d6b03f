"""Pretrain the bundled tiny model from nothing on the Python standard library.

A Llama of 4.5 M parameters (hidden 256, 4 layers, feed-forward 768, vocabulary 4096: every dimension a multiple
of 256, so each 1-bit file format fits it) and its own byte-level BPE tokenizer, both made from the *train* split of
`bitnet_train.train.data.stdlib_corpus` plus the regression tests of that split. Matrices are trained with Muon,
embeddings and norms with AdamW; warm-up, constant, then a linear decay to zero over the last 40 %.

    python -m scripts.assets.tiny --minutes 60 --threads 2 --out bitnet_train/assets/tiny

writes `config.json model.safetensors (bf16) tokenizer.json ... README.md training_log.jsonl` under `--out`. The
budget is wall-clock minutes: the schedule follows elapsed time, so a slower machine sees fewer tokens. State is
saved every five minutes; the same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitnet_train.train.data.stdlib_corpus import Split, stdlib_documents

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTEXT_TOKENS = 512
SAMPLE_PROMPT = "import os\nimport sys\n\n\nclass "
CARD_HEAD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# tiny: the bundled model of bitnet_train

A 4-layer Llama (hidden 256, feed-forward 768, vocabulary 4096, context 512) that writes Python. Made by
`scripts/assets/tiny.py` from the CPython standard library (PSF licence); 5 % of its modules, chosen by a hash of
their path, are held out. It exists so that conversion, training and export can be tried in minutes with no network.
It is no use for anything else. `training_log.jsonl` is the log of the run that made it.
"""
CARD_SAMPLE = "\nSampled (temperature 0.7, top 40, seed 0) after `import os`, `import sys`, `class`:\n"


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 4096 entries with GPT-2's splitting rule."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )
    wrapped.model_max_length = CONTEXT_TOKENS
    wrapped.chat_template = CHATML
    return wrapped


def build_model() -> LlamaForCausalLM:
    """Return the randomly initialised model, float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, split: Split, include_tests: bool) -> torch.Tensor:
    """Return all documents of a split as one int64 [num_tokens], each led by the end-of-text token."""
    ids: list[int] = []
    for text in stdlib_documents(split, include_tests=include_tests):
        ids += [0, *tokenizer.backend_tokenizer.encode(text).ids]
    return torch.tensor(ids)


def learning_rate_factor(progress: float) -> float:
    """Warm up over 1 % of the budget, hold, decay linearly over the last 40 %."""
    return min(progress / 0.01, 1.0, max(0.0, (1.0 - progress) / 0.4))


@torch.no_grad()
def validation_loss(model: LlamaForCausalLM, stream: torch.Tensor, rows: int = 64) -> float:
    """Mean next-token cross-entropy in nats over the first `rows` windows of the held-out stream."""
    windows = stream[: (len(stream) // CONTEXT_TOKENS) * CONTEXT_TOKENS].view(-1, CONTEXT_TOKENS)[:rows]
    model.eval()
    losses = [float(model(input_ids=part, labels=part, use_cache=False).loss) for part in windows.split(16)]
    model.train()
    return sum(losses) / len(losses)


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the 2-D weights of the decoder blocks, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.02, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(args: argparse.Namespace) -> None:
    """Run the whole pretraining, or go on from the state saved under `--out`."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    state_path, log_path = out / "state.pt", out / "training_log.jsonl"

    if (out / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    else:
        tokenizer = train_tokenizer(list(stdlib_documents("train", include_tests=True)))
        tokenizer.save_pretrained(out)
    train_stream = token_stream(tokenizer, "train", include_tests=True)
    held_out_stream = token_stream(tokenizer, "validation", include_tests=False)
    print(f"{len(train_stream):,} training tokens, {len(held_out_stream):,} held-out tokens", flush=True)

    model = build_model()
    optimizers = build_optimizers(model)
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    step, spent_s = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent_s = state["step"], state["spent_s"]
    generator = torch.Generator().manual_seed(args.seed + step)

    budget_s = args.minutes * 60
    last_save_s, last_log_s, running = spent_s, spent_s, []
    started = time.monotonic() - spent_s
    while (spent_s := time.monotonic() - started) < budget_s:
        factor = learning_rate_factor(max(spent_s / budget_s, 1e-3))
        for optimizer, base in zip(optimizers, base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = base * factor
        starts = torch.randint(len(train_stream) - CONTEXT_TOKENS, (args.batch,), generator=generator)
        batch = torch.stack([train_stream[i : i + CONTEXT_TOKENS] for i in starts.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running.append(float(loss.detach()))
        step += 1
        if spent_s - last_log_s > 60 or step == 10:
            row = {
                "step": step,
                "tokens": step * args.batch * CONTEXT_TOKENS,
                "elapsed_s": round(spent_s, 1),
                "train_loss": round(sum(running) / len(running), 4),
                "validation_loss": round(validation_loss(model, held_out_stream), 4),
                "lr_factor": round(factor, 4),
            }
            with log_path.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
            last_log_s, running = spent_s, []
        if spent_s - last_save_s > 300:
            state = {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers],
                "step": step,
                "spent_s": spent_s,
            }
            torch.save(state, state_path.with_suffix(".tmp"))
            state_path.with_suffix(".tmp").rename(state_path)
            last_save_s = spent_s

    loss = validation_loss(model, held_out_stream, rows=10**6)
    row = {"step": step, "tokens": step * args.batch * CONTEXT_TOKENS, "elapsed_s": round(spent_s, 1)}
    with log_path.open("a") as log:
        log.write(json.dumps({**row, "held_out_loss": round(loss, 4)}) + "\n")
    model.to(torch.bfloat16).save_pretrained(out)
    state_path.unlink(missing_ok=True)
    write_card(out)


def write_card(out: Path) -> None:
    """Write the model card from the finished model and the last line of its training log."""
    model, tokenizer = LlamaForCausalLM.from_pretrained(out), PreTrainedTokenizerFast.from_pretrained(out)
    last = json.loads((out / "training_log.jsonl").read_text().splitlines()[-1])
    ids = tokenizer(SAMPLE_PROMPT, return_tensors="pt").input_ids
    torch.manual_seed(0)
    written = model.eval().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=96, do_sample=True, temperature=0.7, top_k=40
    )
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training tokens": last["tokens"],
        "wall-clock minutes": round(last["elapsed_s"] / 60),
        "held-out loss, nats per token": last["held_out_loss"],
        "held-out perplexity": round(math.exp(last["held_out_loss"]), 2),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    lines = [CARD_HEAD, *[f"- {name}: {value}" for name, value in facts.items()], CARD_SAMPLE]
    lines += ["```python", tokenizer.decode(written[0]).rstrip(), "```", ""]
    (out / "README.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock budget (default 60)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=12, help="windows of 512 tokens a step (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="bitnet_train/assets/tiny")
    parser.add_argument("--card", action="store_true", help="only write the model card of a finished run again")
    arguments = parser.parse_args()
    if arguments.card:
        write_card(Path(arguments.out))
    else:
        train(arguments)
