"""Does a GGUF compute the same model? Compare llama.cpp's log-probabilities with ours on the same tokens.

`llama-perplexity --kl-divergence-base FILE` writes the tokens it read and, for the second half of every window, all
log-probabilities in 16 bits: a step of (largest - smallest) / 65535 nats, far below what is compared here.

    magic "_logits_"  n_ctx i32  n_vocab i32  n_chunk i32  tokens i32 [n_chunk * n_ctx]
    per position      scale f32  smallest f32  steps u16 [n_vocab, rounded up to even]   log p = smallest + scale * step

The weights are equal, the activations are not: llama.cpp multiplies 1-bit weights by blocks of 32 int8 values with a
scale each, we by one int8 scale per token. So ours is compared twice: as it runs, and with the same weights and float
activations (`weights_kl_nats`), which is the proof that both hold the same model. `kl_shuffled_nats` is the divergence
between neighbouring positions, what a wrong row order or a missing norm would give at least.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

import bitnet_train
from scripts.llama_cpp.float_model import float_model

WINDOW_TOKENS, NUM_WINDOWS = 128, 2


@dataclass(frozen=True)
class Recorded:
    """What llama.cpp computed: tokens [n, WINDOW_TOKENS], and log p [n, positions, V] from position `first` on."""

    tokens: np.ndarray
    log_p: np.ndarray
    first: int


def agreement(folder: Path, gguf: Path, tool: Path, text: str, num_threads: int = 1) -> dict[str, float]:
    """Return mean KL divergence in nats (ours from llama.cpp's), top-1 agreement, and both perplexities."""
    recorded = record(gguf, tool, text, num_threads)
    ours = our_log_p(bitnet_train.load(folder), recorded)
    same_weights = our_log_p(float_model(folder), recorded)
    theirs = torch.from_numpy(recorded.log_p)
    targets = torch.from_numpy(recorded.tokens[:, recorded.first + 1 :].astype(np.int64)).unsqueeze(-1)
    return {
        "tokens": targets.numel(),
        "weights_kl_nats": divergence(theirs, same_weights),
        "kl_nats": divergence(theirs, ours),
        "kl_shuffled_nats": divergence(theirs, ours.roll(1, 1)),
        "top1_agreement": float((theirs.argmax(-1) == ours.argmax(-1)).float().mean()),
        "perplexity_llama_cpp": float((-theirs.gather(-1, targets)).mean().exp()),
        "perplexity_ours": float((-ours.gather(-1, targets)).mean().exp()),
    }


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """Return the mean KL divergence of log-probabilities q from p, in nats."""
    return float((p.exp() * (p - q)).sum(-1).mean())


def record(gguf: Path, tool: Path, text: str, num_threads: int) -> Recorded:
    """Run `llama-perplexity` over the first windows of `text` and read what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        texts, logits = Path(folder) / "text", Path(folder) / "logits"
        texts.write_text(text, encoding="utf-8")
        sizes = ["-c", str(WINDOW_TOKENS), "-b", str(WINDOW_TOKENS), "--chunks", str(NUM_WINDOWS)]
        files = ["-m", gguf, "-f", texts, "--kl-divergence-base", logits]
        subprocess.run([tool, *files, *sizes, "-t", str(num_threads)], check=True, capture_output=True)
        return read_record(logits.read_bytes())


def read_record(data: bytes) -> Recorded:
    """Parse the file described at the top."""
    assert data[:8] == b"_logits_"
    window, vocab_size, num_windows = (int(value) for value in np.frombuffer(data, "<i4", 3, 8))
    tokens = np.frombuffer(data, "<i4", num_windows * window, 20).reshape(num_windows, window)
    num_positions = window - 1 - window // 2
    rows = np.frombuffer(data, "<u2", offset=20 + tokens.nbytes)
    rows = rows.reshape(num_windows, num_positions, 4 + (vocab_size + 1) // 2 * 2)
    scale, smallest = np.ascontiguousarray(rows[..., :4]).view("<f4").transpose(2, 0, 1)
    log_p = smallest[..., None] + scale[..., None] * rows[..., 4 : 4 + vocab_size].astype(np.float32)
    return Recorded(tokens, log_p, window // 2)


@torch.inference_mode()
def our_log_p(model: PreTrainedModel, recorded: Recorded) -> torch.Tensor:
    """Return our log p [n, positions, V] for the positions that were recorded."""
    logits = model(torch.from_numpy(recorded.tokens.astype(np.int64))).logits
    return logits[:, recorded.first : -1].float().log_softmax(-1)
