"""The device against the CPU: integers and scales with `==`, losses within a bound, a resumed run bit for bit.

Codes, and scales in float16, come from float32 operations that IEEE 754 rounds alike everywhere, but for a mean, whose
sum goes in another order: over K float32 numbers two orders differ by at most K 2^-24 of the sum of magnitudes, and in
practice by far less, so the scale is held against the float16 numbers that a mean moved by that much rounds to, and
codes are compared for one scale given to both.

The loss of the first step differs by what moves a logit. Products of float32 differ by 2^-24 sqrt(K), which is small
beside an activation code that falls to the other side of a rounding: with relative differences d = 2^-20 of what is
quantised, a share p = 2 * 127 d of the codes moves, each by 1/127 of the largest input, about 4 of its deviations. That
changes a layer's output by r = (4 / 127) sqrt(p) of its deviation, and L layers in a row by r sqrt(L). A logit
deviates by a few nats, and a mean over T tokens takes sqrt(T) off: 4 r sqrt(L / T) nats, times 4 to be rarely wrong.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitnet_train.config.compose import compose
from bitnet_train.importers.load import load_pretrained
from bitnet_train.kernels import int_mm, reference
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import absmean_scale, quantize
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.train.loop.checkpoint_manifest import STATE, list_checkpoints
from bitnet_train.verbs.train import train

SCHEMES = {
    "binary_row": WeightScheme(),
    "binary_group64": WeightScheme("binary", "group", 64, learnable_scale=True),
    "binary_2planes": WeightScheme("binary", "group", 64, planes=2, learnable_scale=True),
    "ternary_tensor": WeightScheme("ternary", "tensor"),
}
TINY = ("model.source=tiny", "debug=tiny", "logger=none", "trainer.products=float")  # two steps, two checkpoints
ACTIVATIONS = ("int8", "int4", "sign")
UNIT = 2.0**-24
MOVED = 2.0**-20  # relative, of what is quantised
Facts = dict[str, Any]


def check_agreement(device: torch.device, small: bool, work: Path) -> Facts:
    """Return whether each thing holds, and the losses with their bound."""
    shape = (64, 128) if small else (2048, 2048)
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(shape, generator=generator), torch.randn(256, shape[1], generator=generator)
    holds = {name: _weights_agree(weight, scheme, device) for name, scheme in SCHEMES.items()}
    for name in ACTIVATIONS:
        holds[name] = _inputs_agree(x, ActivationScheme(name), device, compiled=False)
        holds[f"{name}_compiled"] = small or _inputs_agree(x, ActivationScheme(name), device, compiled=True)
    holds |= {f"product_{name}": _products_agree(weight, x, scheme, device) for name, scheme in SCHEMES.items()}
    losses = first_losses(device, small)
    holds["loss"] = abs(losses["device"] - losses["cpu"]) <= losses["bound"]
    holds["resume"] = resumes_bitwise(device, work)
    return {"holds": holds, "losses": losses}


def _weights_agree(weight: Tensor, scheme: WeightScheme, device: torch.device) -> bool:
    """Whether codes are equal, and scales within the rounding of a mean summed in another order."""
    there, own = weight.to(device), absmean_scale(weight, scheme)
    other = absmean_scale(there, scheme).cpu()
    slack = UNIT * weight.shape[1] * own
    dtype = scheme.torch_scale_dtype
    lowest, highest = (own - slack).to(dtype).float(), (own + slack).to(dtype).float()
    is_near = bool(((other >= lowest) & (other <= highest)).all())
    return is_near and torch.equal(quantize(there, own.to(device), scheme).cpu(), quantize(weight, own, scheme))


def _inputs_agree(x: Tensor, scheme: ActivationScheme, device: torch.device, *, compiled: bool) -> bool:
    """Whether codes and scales of tokens are equal."""
    call = torch.compile(quantize_activation) if compiled else quantize_activation
    codes, scale = call(x.to(device), scheme)
    own_codes, own_scale = quantize_activation(x, scheme)
    return torch.equal(codes.cpu(), own_codes) and torch.equal(scale.cpu(), own_scale)


def _products_agree(weight: Tensor, x: Tensor, scheme: WeightScheme, device: torch.device) -> bool:
    """Whether `kernels.int_mm` on the device has the bits of the oracle on the CPU."""
    scale = absmean_scale(weight, scheme)
    x_codes, x_scale = quantize_activation(x, ActivationScheme("int8"))
    given = (x_codes, x_scale, quantize(weight, scale, scheme), scale)
    group = scheme.inputs_per_scale(weight.shape[1])
    y = int_mm.linear(*(tensor.to(device) for tensor in given), None, group, scheme.planes)
    return torch.equal(y.cpu(), reference.linear(*given, None, group, scheme.planes))


def first_losses(device: torch.device, small: bool) -> Facts:
    """Return the loss of one student on one batch on the CPU and on the device, in float32, with its bound."""
    config = compose("quickstart", ["adapter=none", *TINY]).config
    original = load_pretrained("tiny")
    student = assembly.prepare_student(config, original).model.train()
    tokens = (2, 64) if small else (16, 256)
    ids = torch.randint(0, 256, tokens, generator=torch.Generator().manual_seed(1))
    found = {}
    for name, place in (("cpu", torch.device("cpu")), ("device", device)):
        student.to(place)
        with torch.no_grad():
            found[name] = float(student(input_ids=ids.to(place), labels=ids.to(place)).loss)
    share = 2 * 127 * MOVED
    layers = len(bit_layers(student))
    bound = 4 * 4 * (4 / 127) * share**0.5 * (layers / ids.numel()) ** 0.5
    return {**found, "bound": bound}


def resumes_bitwise(device: torch.device, work: Path) -> bool:
    """Whether a run that goes on from its checkpoint before the last ends with the bits of the uninterrupted one."""
    whole, resumed = work / "whole", work / "resumed"
    for folder in (whole, resumed):
        shutil.rmtree(folder, ignore_errors=True)
    place = (
        ["trainer.accelerator=cpu", "trainer.num_threads=1"] if device.type == "cpu" else ["trainer.accelerator=gpu"]
    )
    settings = [*TINY, *place]
    train(compose("quickstart", [*settings, f"run.dir={whole}"]).config)
    shutil.copytree(whole, resumed)
    shutil.rmtree(_checkpoints(resumed)[-1])
    train(compose("quickstart", [*settings, f"run.dir={resumed}", "trainer.resume=auto"]).config)
    own, other = (trained_tensors(folder) for folder in (whole, resumed))
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def trained_tensors(run: Path) -> dict[str, Tensor]:
    """Return what the newest checkpoint of a run holds of the student."""
    return torch.load(_checkpoints(run)[-1] / STATE, map_location="cpu", weights_only=True)["state_dict"]


def _checkpoints(run: Path) -> list[Path]:
    return list_checkpoints(RunDirectory(run).checkpoints)
