r"""Texts that the model in training writes on one prompt: at the start, a few times on the way, at the end.

    samples.jsonl    {"step": 120, "prompt": "def main(", "text": "self):\n ...", "seconds": 0.41}

They are written greedily, by the student as it is validated, in evaluation mode and on the kernels. Random states are
put back, no gradient is made, and weights are read only, so the steps that follow are the same with and without. A
resumed run takes up the file: what was written after the step that it goes on from belongs to steps that are made
again, and goes.

The cost is bounded: by tokens, by seconds a text, and by a share of the training so far. Where one more text would
exceed that share, it is left out, which is said once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from peft import PeftModel
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from bitnet_train.json_text import parse_json
from bitnet_train.model.bit_linear import on_kernels
from bitnet_train.progress import warn
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.moments import is_looked_at
from bitnet_train.train.loop.rng import generator_states, restore_generators
from bitnet_train.whole import append_line, write_whole

SAMPLES_FILE = "samples.jsonl"
MOST_TOKENS = 48
MOST_S = 3.0  # of one text
SHARE = 0.03  # of the time of training
ALWAYS_S = 3.0  # in all, however short the training


@dataclass(frozen=True)
class Sample:
    """What the model wrote on a prompt after so many steps, without the prompt, and the seconds that it took."""

    step: int
    prompt: str
    text: str
    seconds: float


class Samples(Callback):
    """Continue a prompt `count` times in a run, the first and the last step included; `receive` is given each text.

    prompt_ids: the prompt as tokens, in the template of a chat where it is one. max_new_tokens: at most `MOST_TOKENS`.
    Texts in between are written where a step is validated or saved, the first such after evenly spread steps.
    """

    def __init__(
        self,
        run_dir: Path,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        prompt_ids: Sequence[int],
        count: int,
        *,
        max_new_tokens: int = MOST_TOKENS,
        receive: Callable[[Sample], object] | None = None,
    ) -> None:
        self.path, self.tokenizer, self.receive = run_dir / SAMPLES_FILE, tokenizer, receive
        self.prompt, self.prompt_ids, self.count = prompt, list(prompt_ids), count
        self.max_new_tokens = min(max_new_tokens, MOST_TOKENS)
        self._written: list[Sample] = []
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up what the steps so far have written, and write the first text of a new run."""
        module = _module(pl_module)
        if not self._may_write(trainer):
            return
        self._take_up(module.step)
        if module.step == 0 and self.count > 1 and not self._written:
            self._write(trainer, module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a text when one is due and this step was validated or saved."""
        module = _module(pl_module)
        is_between = module.step < module.max_steps and is_looked_at(module)
        if self._may_write(trainer) and is_between and self._is_due(module):
            self._write(trainer, module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the text of the last step."""
        module = _module(pl_module)
        if self._may_write(trainer) and module.step > self._last_step:
            self._write(trainer, module)

    @property
    def _last_step(self) -> int:
        return max((sample.step for sample in self._written), default=-1)

    def _may_write(self, trainer: Trainer) -> bool:
        """Whether this process may: parameters that are spread over several processes give one of them no text."""
        is_whole = trainer.world_size == 1 or "ddp" in type(trainer.strategy).__name__.lower()
        return self.count > 0 and bool(self.prompt_ids) and trainer.is_global_zero and is_whole

    def _is_due(self, module: BitLightningModule) -> bool:
        def passed(step: int) -> int:
            return step * (self.count - 1) // module.max_steps

        return self.count > 1 and passed(module.step) > passed(max(0, self._last_step))

    def _take_up(self, step: int) -> None:
        """Read the texts of earlier steps; take those of later ones out of the file."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        read = [sample for line in lines if (sample := _read(line)) is not None]
        self._written = list({sample.step: sample for sample in read if sample.step <= step}.values())
        if len(self._written) < len(lines):
            write_whole(self.path, "".join(f"{json.dumps(asdict(sample))}\n" for sample in self._written))

    def _write(self, trainer: Trainer, module: BitLightningModule) -> None:
        taken = [sample.seconds for sample in self._written]
        expected = min(taken[1:], default=0.0)  # the first one takes longer than others: it wakes the kernels
        if sum(taken) + expected > max(ALWAYS_S, SHARE * module.seconds):
            self._tell(taken[-1])
            return
        start = time.perf_counter()
        text = self._continued(trainer, module)
        sample = Sample(module.step, self.prompt, text, round(time.perf_counter() - start, 3))
        self._written.append(sample)
        append_line(self.path, json.dumps(asdict(sample)))
        if self.receive is not None:
            self.receive(sample)

    def _continued(self, trainer: Trainer, module: BitLightningModule) -> str:
        model: Any = module.student.get_base_model() if isinstance(module.student, PeftModel) else module.student
        inputs = torch.tensor([self.prompt_ids], device=module.device)
        states = generator_states()
        module.student.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context(), on_kernels():
                output = model.generate(
                    inputs, attention_mask=torch.ones_like(inputs), generation_config=self._greedy(model)
                )
        finally:
            module.student.train()
            restore_generators(states)
        return str(self.tokenizer.decode(output[0, inputs.shape[1] :].tolist(), skip_special_tokens=True))

    def _greedy(self, model: Any) -> GenerationConfig:
        """Return how to write: always the likeliest token, up to an end of text that the model's settings name."""
        ends = getattr(model.generation_config, "eos_token_id", None)
        named = (self.tokenizer.pad_token_id, ends[0] if isinstance(ends, list) and ends else ends, 0)
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            max_time=MOST_S,
            eos_token_id=ends,
            pad_token_id=next(token for token in named if isinstance(token, int)),
        )

    def _tell(self, seconds: float) -> None:
        if not self._told:
            warn(
                f"no text is written at some steps: one takes {seconds:.1f} s, and more than {SHARE:.0%} of the time "
                "of training would go there. `trainer.samples=0` writes none."
            )
        self._told = True


def _read(line: str) -> Sample | None:
    """Return the sample of a line; None for one that is no sample, or was cut by a kill."""
    try:
        values = parse_json(line)
        return Sample(int(values["step"]), str(values["prompt"]), str(values["text"]), float(values["seconds"]))
    except (ValueError, KeyError, TypeError):
        return None


def _module(module: LightningModule | nn.Module) -> BitLightningModule:
    assert isinstance(module, BitLightningModule)
    return module
