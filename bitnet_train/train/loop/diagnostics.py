"""Looking inside the 1-bit layers while they train: `BITNET_DEBUG=1`, or `debug.enabled=true`.

Every few steps one row per layer is shown as a table and appended to `run_dir/debug.jsonl`:

```
zeros        share of codes that are 0 (ternary only)        near_zero    share of |z| < 0.05, z = latent / scale
flips        share of codes that changed since the last row  flips_init   ... since the model was converted
scale        weight scales: quantiles 0, 0.5, 1              activation   scales of the inputs: 0, 0.5, 0.99, 1
popcount     how many words of 64 consecutive weights have 0, 1, ... 64 codes of +1
```

Healthy training shows flips that fall with the learning rate, a near_zero share that does not collapse to 0 (latents
far from the threshold no longer learn) and a popcount bell around 32. `flips_init` is right after a resume too: the
codes it compares with are taken before the checkpoint is loaded. Costs two int8 copies of the codes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bitnet_train.model.bit_linear import BitLinear, clean_name
from bitnet_train.progress import open_console
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.weight import expand_scale
from bitnet_train.train.loop.layer_watch import quantised_layers
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.whole import append_line

DEBUG_FILE = "debug.jsonl"
NEAR_ZERO = 0.05
WORD = 64
_BARS = " ▁▂▃▄▅▆▇█"
TABLE_COLUMNS = 116
_MOST_VALUES = 1 << 20  # torch.quantile refuses more than 2^24 values; a million are plenty


@dataclass(frozen=True)
class LayerFigures:
    """One row of the table above. `popcount` has 65 counts; `activation` is empty where inputs stay float."""

    step: int
    layer: str
    zeros: float
    near_zero: float
    flips: float
    flips_init: float
    scale: list[float]
    activation: list[float]
    popcount: list[int]


def popcount_histogram(codes_NK: Tensor) -> list[int]:
    """Count +1 codes per word of 64 consecutive inputs: 65 counts; an incomplete last word of a row is left out."""
    num_words = codes_NK.shape[1] // WORD
    words = (codes_NK[:, : num_words * WORD] == 1).reshape(-1, WORD)
    return torch.bincount(words.sum(dim=1), minlength=WORD + 1).tolist() if num_words else [0] * (WORD + 1)


def quantiles(values: Tensor, at: tuple[float, ...]) -> list[float]:
    """Return quantiles of all values, of an even sample where there are more than a million."""
    flat = values.detach().flatten().float()
    flat = flat[:: -(-flat.numel() // _MOST_VALUES)]
    return torch.quantile(flat, torch.tensor(at, device=flat.device)).tolist()


class Telemetry(Callback):
    """Write `LayerFigures` every `every_steps` finished steps, and after the last."""

    def __init__(self, run_dir: Path, every_steps: int = 50, console: Console | None = None) -> None:
        self.path, self.every_steps = run_dir / DEBUG_FILE, every_steps
        self.console = console or open_console(stderr=True)
        self.console.width = max(self.console.width, TABLE_COLUMNS)  # a wrapped line is better than figures cut short
        self._initial: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}
        self._activation: dict[str, list[float]] = {}
        self._listening = False

    @staticmethod
    def wanted(enabled: bool) -> bool:
        """Tell whether the configuration or `BITNET_DEBUG` asks for telemetry."""
        return enabled or os.environ.get("BITNET_DEBUG", "0").lower() not in ("", "0", "false", "no")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the codes of the converted model; Lightning calls this before it loads a checkpoint."""
        self._initial = _codes(_student(pl_module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the comparison, and listen to the layers' inputs."""
        self._latest = _codes(_student(pl_module))
        for name, module in _student(pl_module).named_modules():
            if isinstance(module, BitLinear) and module.activation.name != "none":
                module.register_forward_pre_hook(partial(self._hear, clean_name(name)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Listen to this step if it will be shown."""
        self._activation = {}
        self._listening = self._is_due(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, show and write."""
        if not self._listening or not trainer.is_global_zero:
            return
        self._listening = False
        rows = self.measure(pl_module)
        self._write(rows)
        self.console.print(as_table(rows))

    @torch.no_grad()
    def measure(self, pl_module: LightningModule) -> list[LayerFigures]:
        """Return one row per layer, and remember the codes for the next time."""
        assert isinstance(pl_module, BitLightningModule)
        rows = []
        for name, layer in quantised_layers(pl_module.student).items():
            codes, scale = layer.quantized()
            z = layer.latent() / expand_scale(scale, *codes.shape)
            row = LayerFigures(
                step=pl_module.step,
                layer=name,
                zeros=_share(codes == 0),
                near_zero=_share(z.abs() < NEAR_ZERO),
                flips=_share(codes != self._latest[name]),
                flips_init=_share(codes != self._initial[name].to(codes.device)),
                scale=quantiles(scale, (0.0, 0.5, 1.0)),
                activation=self._activation.get(name, []),
                popcount=popcount_histogram(codes),
            )
            self._latest[name] = codes.clone()
            rows.append(row)
        return rows

    def _is_due(self, pl_module: LightningModule) -> bool:
        assert isinstance(pl_module, BitLightningModule)
        step = pl_module.step + 1  # the one that this batch will finish
        return step % self.every_steps == 0 or step == pl_module.max_steps

    def _hear(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._listening and name not in self._activation:  # the first micro-batch stands for the step
            assert isinstance(layer, BitLinear)
            _, scale = quantize_activation(inputs[0], layer.activation)
            self._activation[name] = quantiles(scale, (0.0, 0.5, 0.99, 1.0))

    def _write(self, rows: list[LayerFigures]) -> None:
        append_line(self.path, "\n".join(json.dumps(asdict(row)) for row in rows))


def as_table(rows: list[LayerFigures]) -> Table:
    """Lay rows out for a terminal."""
    title = f"1-bit layers after step {rows[0].step if rows else 0}"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("layer", no_wrap=True)
    for heading in ("zeros", "|z|<0.05", "flips", "since init", "scale", "input p50 p99", "popcount 0-64"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        activation = f"{row.activation[1]:.2g} {row.activation[2]:.2g}" if row.activation else "-"
        shares = (f"{share:.2%}" for share in (row.zeros, row.near_zero, row.flips, row.flips_init))
        name, scale = row.layer.removeprefix("model."), f"{row.scale[1]:.2g}"
        table.add_row(name, *shares, scale, activation, _sparkline(row.popcount))
    return table


def _sparkline(counts: list[int], num_bins: int = 13) -> str:
    width = len(counts) // num_bins
    bins = [sum(counts[i : i + width]) for i in range(0, len(counts), width)]
    return "".join(_BARS[round(b / max(1, *bins) * (len(_BARS) - 1))] for b in bins)


def _student(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module, BitLightningModule)
    return pl_module.student


def _codes(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.quantized()[0].clone() for name, layer in quantised_layers(model).items()}


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
