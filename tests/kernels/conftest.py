"""Random and worst-case problems for the kernels."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor

from bitnet_train.formats.planes import pack_planes
from bitnet_train.kernels import ops, reference
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import CODES, ActivationScheme
from tests.fixtures.schemes import weight_scheme
from tests.kernels.csrc import CSRC

COMMON = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", f"-I{CSRC}")

Build = Callable[[str, tuple[str, ...], Mapping[Path, tuple[str, ...]]], Path]


@pytest.fixture(scope="session")
def build_program(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile C++ files, each with flags of its own, into a program.

    Objects and programs are kept until a source changes, where pytest keeps what outlives a session; `pytest
    --cache-clear` builds them anew. Programs that share a file and its flags share the object.
    """
    cache = getattr(pytestconfig, "cache", None)
    kept = cache.mkdir("selftest") if cache else tmp_path_factory.mktemp("selftest")
    place = kept / _digest(*(path.read_bytes() for path in sorted(CSRC.rglob("*")) if path.is_file()))
    place.mkdir(exist_ok=True)
    for older in kept.iterdir():
        if older != place:
            shutil.rmtree(older, ignore_errors=True)

    def made(command: tuple[str, ...]) -> Path:
        """What `command` writes to the file that is named at its end."""
        target = place / _digest(repr((_run(command[0], "--version"), command)).encode())
        if not target.is_file():
            with TemporaryDirectory(dir=place) as folder:
                _run(*command, "-o", str(Path(folder) / "made"))
                (Path(folder) / "made").replace(target)
        return target

    def build(compiler: str, flags: tuple[str, ...], sources: Mapping[Path, tuple[str, ...]]) -> Path:
        objects = [made((compiler, *COMMON, *flags, *own, "-c", str(source))) for source, own in sources.items()]
        return made((compiler, *flags, *map(str, objects), "-pthread"))

    return build


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()[:24]


@dataclass(frozen=True)
class Problem:
    x: Tensor
    x_codes: Tensor
    w_codes: Tensor
    w_scale: Tensor
    bias: Tensor | None
    group_size: int
    weight: str
    activation: str

    @property
    def num_inputs(self) -> int:
        return self.w_codes.shape[1]

    @property
    def packed(self) -> tuple[Tensor, ops.PackedWeight]:
        planes = pack_planes(self.w_codes, self.weight)
        return ops.pack(planes, self.w_scale, self.num_inputs, self.group_size, self.weight, self.activation)

    @property
    def x_scale(self) -> Tensor:
        return quantize_activation(self.x, ActivationScheme(self.activation))[1]

    def dot(self) -> Tensor:
        return ops.packed_dot(self.x_codes, *self.packed)

    def linear(self) -> Tensor:
        stream, weight = self.packed
        return ops.packed_linear(self.x, stream, self.bias, weight)

    def codes_linear(self) -> Tensor:
        return self._linear(self.x_codes, self.x_scale)

    def reference_linear(self) -> Tensor:
        return self._linear(*quantize_activation(self.x, ActivationScheme(self.activation)))

    def _linear(self, x_codes: Tensor, x_scale: Tensor) -> Tensor:
        planes = weight_scheme(self.weight).planes
        return reference.linear(x_codes, x_scale, self.w_codes, self.w_scale, self.bias, self.group_size, planes)


ACTIVATION_CODES = {"int8": (-128, 127), "int4": (-8, 7), "sign": (-1, 1)}


def codes(shape: tuple[int, int], lowest: int, highest: int, *, zero: bool, generator: torch.Generator) -> Tensor:
    """Uniform int8 codes from `lowest` to `highest`, without 0 where a scheme has none."""
    values = torch.randint(lowest, highest + 1, shape, generator=generator, dtype=torch.int8)
    return values if zero else torch.where(values >= 0, 1, -1).to(torch.int8)


def drawn(choices: tuple[int, ...], shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Uniform int8 values among `choices`."""
    return torch.tensor(choices, dtype=torch.int8)[torch.randint(len(choices), shape, generator=generator)]


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    """Build a random problem: weight, activation, T, N, K, group size, seed."""

    def make(
        weight: str,
        activation: str,
        num_tokens: int,
        num_outputs: int,
        num_inputs: int,
        group_size: int,
        seed: int = 0,
        half_scales: bool = False,
    ) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        lowest, highest = ACTIVATION_CODES[activation]
        w_scale = torch.rand(num_outputs, num_inputs // group_size, generator=generator) + 0.01
        return Problem(
            x=torch.randn(num_tokens, num_inputs, generator=generator),
            x_codes=codes((num_tokens, num_inputs), lowest, highest, zero=activation != "sign", generator=generator),
            w_codes=drawn(CODES[weight], (num_outputs, num_inputs), generator),
            w_scale=w_scale.half().float() if half_scales else w_scale,
            bias=torch.randn(num_outputs, generator=generator),
            group_size=group_size,
            weight=weight,
            activation=activation,
        )

    return make
