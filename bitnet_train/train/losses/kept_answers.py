"""What a frozen model says of a row, as it is kept on disk, and the target that is made of it again.

```
                 bytes a token                  what it serves
TopAnswers       2 (k + 1) + 2 k or 4 k         forward KL alone, from below (`teacher_top_k`)
StateAnswers     2 D                            every term over logits; the states are rounded to bfloat16
```

An answer is a tuple of tensors whose first axis is the real tokens n of one row.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bitnet_train.train.losses.head_loss import TeacherStates
from bitnet_train.train.losses.logit_loss import Target
from bitnet_train.train.losses.plain_head import PlainHead
from bitnet_train.train.losses.teacher_top_k import TopK, summarise

Batch = dict[str, Tensor]
Answer = tuple[Tensor, ...]


class Answers(Protocol):
    """How answers are asked for, kept and read."""

    settings: tuple[Any, ...]
    """What tells a folder of them from another of the same teacher."""
    token_bytes: int

    def ask(self, inputs: Batch, mask_RL: Tensor) -> list[Answer]:
        """Run the teacher over some rows; return the answer to each, of its real tokens."""
        ...

    def encode(self, answer: Answer) -> bytes:
        """Return n `token_bytes` bytes, little-endian."""
        ...

    def decode(self, payload: bytes) -> Answer:
        """Inverse of `encode`, on the CPU."""
        ...

    def target(self, answers: list[Answer], mask_BL: Tensor) -> Target:
        """Put the real tokens of all rows where the mask has them; zeros elsewhere."""
        ...


class TopAnswers:
    """The likeliest tokens: log-probabilities float16 [n,k+1], the last one the rest's, and token ids int64 [n,k]."""

    def __init__(self, teacher: nn.Module, top_k: int, temperature: float = 1.0) -> None:
        vocabulary = int(teacher.get_input_embeddings().num_embeddings)  # type: ignore[operator, union-attr]
        self._teacher, self._top_k, self._temperature = teacher, min(top_k, vocabulary), temperature
        self._id_type = np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<i4")
        self.settings = (self._top_k, temperature)
        self.token_bytes = 2 * (self._top_k + 1) + self._id_type.itemsize * self._top_k

    def ask(self, inputs: Batch, mask_RL: Tensor) -> list[Answer]:
        """Keep the likeliest of each row's logits."""
        logits_RLV = self._teacher(**inputs, use_cache=False).logits
        found = (summarise(row[mask], self._top_k, self._temperature) for row, mask in _rows(logits_RLV, mask_RL))
        return [(summary.log_probabilities, summary.token_ids) for summary in found]

    def encode(self, answer: Answer) -> bytes:
        """All logarithms, then all ids."""
        values, ids = (part.cpu().numpy() for part in answer)
        return values.astype("<f2").tobytes() + ids.astype(self._id_type).tobytes()

    def decode(self, payload: bytes) -> Answer:
        """Read them again."""
        num_tokens = len(payload) // self.token_bytes
        cut = num_tokens * (self._top_k + 1)
        values = np.frombuffer(payload, "<f2", cut).reshape(num_tokens, -1)
        ids = np.frombuffer(payload, self._id_type, offset=2 * cut).reshape(num_tokens, -1)
        return torch.from_numpy(values.copy()), torch.from_numpy(ids.astype(np.int64))

    def target(self, answers: list[Answer], mask_BL: Tensor) -> TopK:
        """Return them by row of the flattened logits."""
        values, ids = _placed(answers, mask_BL)
        return TopK(values, ids)


class StateAnswers:
    """The last hidden states bfloat16 [n,D], of which the teacher's head makes logits."""

    settings: tuple[Any, ...] = ("states",)

    def __init__(self, parts: PlainHead) -> None:
        self._parts = parts
        self._width = int(parts.head.in_features)  # type: ignore[arg-type]
        self.token_bytes = 2 * self._width

    def ask(self, inputs: Batch, mask_RL: Tensor) -> list[Answer]:
        """Round each row's states."""
        states_RLD = self._parts.body(**inputs, use_cache=False).last_hidden_state
        return [(row[mask].to(torch.bfloat16),) for row, mask in _rows(states_RLD, mask_RL)]

    def encode(self, answer: Answer) -> bytes:
        """Return the bits of the bfloat16 numbers."""
        return answer[0].cpu().contiguous().view(torch.uint16).numpy().astype("<u2").tobytes()

    def decode(self, payload: bytes) -> Answer:
        """Read them again."""
        bits = np.frombuffer(payload, "<u2").astype(np.uint16).reshape(-1, self._width)
        return (torch.from_numpy(bits).view(torch.bfloat16),)

    def target(self, answers: list[Answer], mask_BL: Tensor) -> TeacherStates:
        """Return them by row of the flattened logits, in the dtype of the head."""
        (states,) = _placed(answers, mask_BL)
        head: Any = self._parts.head
        return TeacherStates(states.to(_dtype(head)), head)


def _rows(values_RL: Tensor, mask_RL: Tensor) -> Any:
    return zip(values_RL, mask_RL, strict=True)


def _dtype(head: nn.Module) -> torch.dtype:
    """That of its weight; float32 of a head without one, whose weights are int8."""
    return next((parameter.dtype for parameter in head.parameters()), torch.float32)


def _placed(answers: list[Answer], mask_BL: Tensor) -> list[Tensor]:
    """Return each part of all answers [B L, ..] by row of the flattened logits."""
    placed = []
    with torch.autocast(mask_BL.device.type, enabled=False):  # autocast on a CPU knows no float16
        for parts in zip(*answers, strict=True):
            joined = torch.cat([part.to(mask_BL.device) for part in parts])
            whole = joined.new_zeros(*mask_BL.shape, *joined.shape[1:])
            whole[mask_BL] = joined
            placed.append(whole.flatten(0, 1))
    return placed
