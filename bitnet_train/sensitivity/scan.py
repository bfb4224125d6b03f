"""Try every part of a model: alone quantised, alone in ternary, and alone left float, without any training.

    only       this part has the scheme of the plan, everything else is float
    ternary    the same with ternary codes, where the plan says binary
    spared     everything has the scheme of the plan but this part, which is float

`only` says what a part costs; `spared` what it would give back. Untrained, a model that is quantised throughout is
often so far gone that `spared` hardly differs from part to part, so parts are ordered by `only`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from bitnet_train.evaluate.batches import Batch
from bitnet_train.facts import read
from bitnet_train.formats.planes import NUM_PLANES, row_bytes
from bitnet_train.model.plan import Plan
from bitnet_train.model.select import candidates
from bitnet_train.progress import track
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.sensitivity.importance import listening
from bitnet_train.sensitivity.in_place import InPlace
from bitnet_train.sensitivity.parts import Part, parts_of
from bitnet_train.sensitivity.reference import Fidelity, Reference

FLOAT_BYTES = 2
"""Bytes of a weight that stays float, as it would be stored: fp16."""
_SCALE_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Result:
    """One part: what it costs in quality, and its bytes as the plan has it, in ternary (None: it is), and in fp16."""

    part: Part
    weights: int
    planned_bytes: int
    ternary_bytes: int | None
    only: Fidelity
    ternary: Fidelity | None
    spared: Fidelity

    @property
    def float_bytes(self) -> int:
        """Bytes of the part in fp16."""
        return FLOAT_BYTES * self.weights

    @property
    def bits_per_weight(self) -> float:
        """Bits of codes and scales per weight, as the plan has it."""
        return 8 * self.planned_bytes / self.weights

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {**asdict(self), "bits_per_weight": self.bits_per_weight, "float_bytes": self.float_bytes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """Inverse of `to_dict`."""
        return cls(
            part=read(Part, values["part"]),
            **{name: values[name] for name in ("weights", "planned_bytes", "ternary_bytes")},
            only=read(Fidelity, values["only"]),
            ternary=None if values["ternary"] is None else read(Fidelity, values["ternary"]),
            spared=read(Fidelity, values["spared"]),
        )


@dataclass(frozen=True)
class Scan:
    """Every part, and the whole model: float, and with everything quantised as planned."""

    tokens: int
    perplexity: float
    everything: Fidelity
    planned_bytes: int
    results: tuple[Result, ...]


class Scanner:
    """A float model, the plan for it, and the rows to measure on; the model is the same after every method."""

    def __init__(
        self,
        model: PreTrainedModel,
        plan: Plan,
        weight: WeightScheme,
        activation: ActivationScheme,
        rows: Batch,
        *,
        fitted: bool = False,
    ) -> None:
        """With `fitted`, scales are fitted to the weights and to what these rows make of their inputs."""
        self._model, self._plan, self._ternary = model, plan, replace(weight, name="ternary", planes=1)
        self._shapes = {row.name: row.shape for row in plan.rows}
        layers = candidates(model)
        with listening(model, layers if fitted else {}) as importance:
            self._reference = Reference(model, rows)
        self._in_place = InPlace(layers, activation, importance)

    def scan(self, *, layers: bool = False) -> Scan:
        """Measure every family and block, and with `layers` every layer on its own."""
        schemes = self._plan.schemes
        parts = parts_of(tuple(schemes), layers=layers)
        steps: list[Callable[[], Fidelity]] = []
        ternary = {part: self._in_ternary(part) for part in parts}
        for part in parts:
            steps.append(lambda part=part: self.measure({name: schemes[name] for name in part.names}))
            if ternary[part] is not None:
                steps.append(lambda part=part: self.measure(ternary[part] or {}))
        alone = iter([step() for step in track(steps, "parts alone", len(steps))])
        found = [(part, next(alone), next(alone) if ternary[part] is not None else None) for part in parts]
        everything, spared = self._spare_each(parts)
        results = tuple(
            self._result(part, ternary[part], only, in_ternary, spared[part]) for part, only, in_ternary in found
        )
        total = total_bytes(schemes, self._shapes)
        return Scan(self._reference.tokens, self._reference.perplexity, everything, total, results)

    def measure(self, schemes: Mapping[str, WeightScheme]) -> Fidelity:
        """Compare the model with exactly these layers quantised to its float self."""
        try:
            self._in_place.quantize(schemes)
            return self._reference.measure(self._model)
        finally:
            self._in_place.put_back()

    def alone(self, parts: Sequence[Part], schemes: Mapping[str, WeightScheme]) -> dict[Part, float]:
        """Return the KL divergence of every part alone in these schemes, nats a token."""
        return {
            part: self.measure({name: schemes[name] for name in part.names}).kl
            for part in track(parts, "planes of parts", len(parts))
        }

    def rounding_error(self, name: str, scheme: WeightScheme) -> float:
        """See `InPlace.rounding_error`."""
        return self._in_place.rounding_error(name, scheme)

    def _spare_each(self, parts: list[Part]) -> tuple[Fidelity, dict[Part, Fidelity]]:
        """Quantise everything, then put one part back at a time."""
        schemes, spared = self._plan.schemes, {}
        try:
            self._in_place.quantize(schemes)
            everything = self._reference.measure(self._model)
            for part in track(parts, "all but one part", len(parts)):
                self._in_place.put_back(part.names)
                spared[part] = self._reference.measure(self._model)
                self._in_place.quantize({name: schemes[name] for name in part.names})
        finally:
            self._in_place.put_back()
        return everything, spared

    def _in_ternary(self, part: Part) -> dict[str, WeightScheme] | None:
        """What the entry `{pattern: PART, name: ternary}` gives; None where no code of the part would change."""
        if all(self._plan.schemes[name].name == "ternary" for name in part.names):
            return None
        return dict.fromkeys(part.names, self._ternary)

    def _result(
        self,
        part: Part,
        ternary_schemes: Mapping[str, WeightScheme] | None,
        only: Fidelity,
        ternary: Fidelity | None,
        spared: Fidelity,
    ) -> Result:
        planned = {name: self._plan.schemes[name] for name in part.names}
        return Result(
            part=part,
            weights=sum(math.prod(self._shapes[name]) for name in part.names),
            planned_bytes=total_bytes(planned, self._shapes),
            ternary_bytes=total_bytes(ternary_schemes, self._shapes) if ternary_schemes is not None else None,
            only=only,
            ternary=ternary,
            spared=spared,
        )


def total_bytes(schemes: Mapping[str, WeightScheme], shapes: Mapping[str, tuple[int, int]]) -> int:
    """Bytes of planes and scales of layers [N, K] in a packed folder."""
    return sum(_layer_bytes(scheme, *shapes[name]) for name, scheme in schemes.items())


def _layer_bytes(scheme: WeightScheme, num_outputs: int, num_inputs: int) -> int:
    scales = math.prod(scheme.scale_shape(num_outputs, num_inputs)) * _SCALE_BYTES[scheme.scale_dtype]
    return NUM_PLANES[scheme.code_set] * num_outputs * row_bytes(num_inputs) + scales
