"""AdamW over parameters that differ in kind, and a check that the learning rate can flip signs at all.

| group      | which                                             | weight decay | learning rate         |
|------------|---------------------------------------------------|--------------|-----------------------|
| latents    | weights of 1-bit layers                           | 0            | `lr`                  |
| scales     | learnable scales of 1-bit layers                  | 0            | `lr * scale_lr_factor`|
| adapters   | LoRA factors                                      | yes          | `lr`                  |
| norms_bias | vectors: norms and biases                         | 0            | `lr`                  |
| dense      | other matrices that train, such as the embedding  | yes          | `lr * dense_lr_factor`|
| tables     | those of them that are tables of few bits         | yes          | `lr * dense_lr_factor`|

What is stored rounded (norms and biases, dense, tables: `quant.stored`) is rounded after every step, so that the next
forward computes with it; the float32 values that train are kept beside Adam's moments, as `master`.

Latents and scales never decay: a shrinking latent says nothing about the sign that the model computes with.

An Adam step moves a latent by about its learning rate, and a warm-up with decay averages to about half the peak, so
a latent travels at most ~`lr * steps / 2`. If that is far below mean|W|, almost no sign can flip and training only
adjusts the rest (`reach`). Two to five times mean|W| worked in published runs. `lr=auto` turns the rule round: with
c = `OptimConfig.reach`, lr = 2 c mean|W| / steps (`automatic_lr`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.rounded_table import stored_parameters
from bitnet_train.quant.scheme import TABLE_BITS
from bitnet_train.quant.stored import Stored, round_into
from bitnet_train.train.choice import choose
from bitnet_train.train.loop.settings import AUTO, OptimConfig
from bitnet_train.train.loop.spread import share


class OnePassAdamW(torch.optim.AdamW):
    """torch's fused AdamW, which goes over its memory once instead of once an operation.

    torch's own raises no version of the tensors that it writes, so whatever is remembered about a weight while it
    does not change (`version_cache`) would be kept for ever. Here they are raised. A group with the key `stored` holds
    parameters that are rounded after each step (`quant.stored`); what they would be lies in the state, as `master`.
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)

    def step(self, closure: Any = None) -> Any:
        """Make a step, and say that the parameters have changed."""
        with self._as_masters():
            loss = super().step(closure)
        for group in self.param_groups:
            increment_version([parameter for parameter in group["params"] if parameter.grad is not None])
        self._round()
        return loss

    @contextmanager
    def _as_masters(self) -> Iterator[None]:
        """Let parameters be their masters, without a copy; their own memory, which others may view, waits."""
        with torch.no_grad():
            moved = [p for p, _ in self._stored() if "master" in self.state.get(p, {})]
            own = [(share(p), share(p).data) for p in moved]
            for parameter, (tensor, _) in zip(moved, own, strict=True):
                tensor.data = share(self.state[parameter]["master"])
        try:
            yield
        finally:
            for tensor, data in own:
                tensor.data = data

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, stored in self._stored():
            state = self.state[parameter]
            if "master" not in state:  # this was its first step
                state["master"] = parameter.detach().clone()
            round_into(share(state["master"]), stored, share(parameter))

    def _stored(self) -> Iterator[tuple[Tensor, Stored]]:
        """The parameters that this step moves and that are stored rounded, and to what."""
        for group in self.param_groups:
            for parameter in group["params"] if group.get("stored") is not None else ():
                if parameter.grad is not None:
                    yield parameter, group["stored"]


OPTIMIZERS = {"adamw": OnePassAdamW}
DECAYED = ("adapters", "dense", "tables")
GROUPS = ("latents", "scales", "adapters", "norms_bias", "dense", "tables")


def parameter_groups(student: nn.Module) -> dict[str, list[Tensor]]:
    """Sort the parameters that train into the rows of the table above; every one lands in exactly one row.

    Raises
    ------
    TrainingError
        When nothing trains.
    """
    kinds = {id(p): kind for p, kind in _bit_parameters(student)}
    kinds |= {id(p): "tables" for p, stored in stored_parameters(student) if stored in TABLE_BITS}
    groups: dict[str, list[Tensor]] = {name: [] for name in GROUPS}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            groups[kinds.get(id(parameter)) or _kind(name, parameter)].append(parameter)
    if not any(groups.values()):
        raise TrainingError("No parameter trains: every one is frozen. Attach an adapter, or set `adapter.kind=none`.")
    return groups


def build_optimizer(student: nn.Module, config: OptimConfig, *, rounded: bool = False) -> torch.optim.Optimizer:
    """Return the optimiser over `parameter_groups`; each group carries its peak rate as `peak_lr`.

    Where the model is `rounded`, so is what is not 1-bit, after every step.
    """
    groups, peak = [], _number(config.lr)
    dense = config.dense_lr_factor
    factors = {"scales": config.scale_lr_factor, "dense": dense, "tables": dense}
    kinds = {id(parameter): stored for parameter, stored in stored_parameters(student)} if rounded else {}
    for name, parameters in parameter_groups(student).items():
        rate = peak * factors.get(name, 1.0)
        decay = config.weight_decay if name in DECAYED else 0.0
        group = {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay, "name": name}
        if parameters:
            groups.append(group | ({"stored": kinds[id(parameters[0])]} if id(parameters[0]) in kinds else {}))
    return choose(OPTIMIZERS, config.name, "optimizer.name")(groups, lr=peak, betas=(config.betas[0], config.betas[1]))


def take_settings(optimizer: torch.optim.Optimizer, student: nn.Module, config: OptimConfig) -> None:
    """Give an optimiser the rates, decays and betas of `config`; its moments stay.

    A checkpoint brings its own settings along with the moments, and a run that is continued may have others.
    """
    wanted = {group["name"]: group for group in build_optimizer(student, config).param_groups}
    for group in optimizer.param_groups:
        group.update({key: wanted[group["name"]][key] for key in ("peak_lr", "weight_decay", "betas")})


@dataclass(frozen=True)
class Reach:
    """How far a latent can travel, `moved = lr * steps / 2`, against how far zero is, `mean_weight = mean|W|`."""

    lr: float
    max_steps: int
    moved: float
    mean_weight: float

    def warning(self) -> str | None:
        """Say what to change when latents cannot travel their own mean magnitude, else None."""
        if self.moved >= self.mean_weight:
            return None
        suggested = 4 * self.mean_weight / self.max_steps
        return (
            f"`optimizer.lr={self.lr:g}` moves a latent by at most ~{self.moved:.2g} in {self.max_steps} steps, but "
            f"mean |W| is {self.mean_weight:.2g}: few signs can flip. Try `optimizer.lr={suggested:.1g}` or more steps."
        )


def reach(student: nn.Module, config: OptimConfig, max_steps: int) -> Reach | None:
    """Measure the rule above over the latents that train; None where no latent trains (adapters, scales only)."""
    magnitude = _mean_latent(student)
    if magnitude is None:
        return None
    lr = _number(config.lr)
    return Reach(lr, max_steps, lr * max_steps / 2, magnitude)


def automatic_lr(student: nn.Module, config: OptimConfig, max_steps: int) -> OptimConfig:
    """Return `config` with `lr=auto` replaced by the rate at which a latent travels `config.reach` times mean|W|.

    Raises
    ------
    ConfigError
        When no latent trains, so that there is no magnitude to go by.
    """
    if config.lr != AUTO:
        return replace(config, lr=_number(config.lr))
    magnitude = _mean_latent(student)
    if magnitude is None:
        raise ConfigError(
            "`optimizer.lr=auto` follows the size of the latents, and none of them trains here. "
            "Give a number, such as `optimizer.lr=3e-4`, or set `adapter.kind=none`."
        )
    return replace(config, lr=2 * config.reach * magnitude / max_steps)


def _mean_latent(student: nn.Module) -> float | None:
    latents = parameter_groups(student)["latents"]
    if not latents:
        return None
    total = sum(float(w.detach().abs().sum(dtype=torch.float64)) for w in latents)
    return total / sum(w.numel() for w in latents)


def _number(lr: float | str) -> float:
    assert lr != AUTO, "`automatic_lr` comes first"
    return float(lr)


def _bit_parameters(student: nn.Module) -> list[tuple[Tensor, str]]:
    layers = bit_layers(student).values()
    latents: list[tuple[Tensor, str]] = [(layer.weight, "latents") for layer in layers]
    return latents + [(layer.scale, "scales") for layer in layers if layer.scale is not None]


def _kind(name: str, parameter: Tensor) -> str:
    if "lora_" in name:
        return "adapters"
    return "norms_bias" if parameter.ndim < 2 else "dense"
