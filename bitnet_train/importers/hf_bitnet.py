"""A Hugging Face folder with `quant_method: bitnet` (Falcon-E, HF1BitLLM, microsoft 2B-4T) as a model to train.

    linear_class, mode          in the file                            here
    bitlinear                   packed codes, 1 / scale                codes, scale
    autobitlinear, offline      packed codes, scale; bias / scale      codes, scale, bias
    autobitlinear, online       float latents                          the same latents, ternary per tensor

`formats/hf_bitnet.py` has the bytes and the two meanings of `weight_scale`. A model in which the convention and the
scales disagree computes nonsense without a word, and transformers fills a scale that is missing with whatever is in
memory; so here the convention comes from config.json only, and every layer that has to have a scale is looked at.

`autobitlinear` adds the bias before it multiplies by the scale, so its stored bias is divided by the scale. Online, the
codes are those of round(w / mean|w|), where transformers computes round(w * (1 / mean|w|)): a latent weight within one
rounding of half a scale can fall on the other side. A norm inside the linear (`use_rms_norm`) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from bitnet_train.errors import FormatError
from bitnet_train.formats.hf_bitnet import LinearClass, from_weight_scale, unpack_strided
from bitnet_train.importers.one_bit_model import OneBitWeight, empty_model, fill_floats, fill_one_bit, selection_of
from bitnet_train.json_text import parse_json
from bitnet_train.model.config_fields import drop_padding_beyond
from bitnet_train.model.convert import replace_layers
from bitnet_train.model.converted import ConversionRecord, weight_files
from bitnet_train.model.generation_settings import restore_generation_settings
from bitnet_train.progress import track
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Identity
from bitnet_train.rust_panic import panics_as_errors

_LATENTS = WeightScheme("ternary", "tensor", scale_dtype="float32")
_LINEAR_CLASSES: tuple[LinearClass, ...] = ("bitlinear", "autobitlinear")
_SIZES = ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")
_PLAIN_PATTERN = re.compile(r"[\w.*-]{1,256}")
_COMPUTED = re.compile(r".*rotary_emb\.inv_freq")  # in folders of long ago


@dataclass(frozen=True)
class Convention:
    """How a folder says its linears compute."""

    linear_class: LinearClass
    online: bool
    kept: tuple[str, ...] | None
    """Patterns of the linears that are plain; None leaves it to transformers: the head."""


def is_hf_bitnet(folder: Path) -> bool:
    """Whether config.json says `quant_method: bitnet`. Raises FormatError when it cannot be read."""
    quantization = read_json(folder / "config.json").get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("quant_method") == "bitnet"


def import_hf_bitnet(
    folder: Path, activation: ActivationScheme, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ConversionRecord]:
    """The model in evaluation mode, its tokenizer, and the record that names its 1-bit layers.

    `activation` quantises the inputs of the 1-bit layers, `dtype` is that of everything else.

    Raises FormatError for a damaged folder, a missing `weight_scale`, codes that are not -1, 0, +1, and for tensors
    that do not fit the config.
    """
    content = read_json(folder / "config.json")
    convention = _convention(folder, content["quantization_config"])
    tensors = _Tensors(folder)
    _check_sizes(folder, content, tensors)
    config, tokenizer = _config_and_tokenizer(folder)
    model = _skeleton(folder, config, dtype)
    names = [name for name in _one_bit_names(model, convention) if f"{name}.weight" in tensors.places]
    if convention.online:
        fill_floats(model, tensors.floats(names, ()))
        selection = selection_of(model, set(names))
        replace_layers(model, dict.fromkeys(names, _LATENTS), activation, Identity())
        record = ConversionRecord(tuple(names), _LATENTS, activation, Identity(), selection)
    else:
        record = _fill(model, tensors, names, convention, activation)
    restore_generation_settings(model, folder)
    return model.eval(), tokenizer, record


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises FormatError when there is none."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds no JSON object. Download it again.")
    return content


def _fill(
    model: PreTrainedModel,
    tensors: _Tensors,
    names: list[str],
    convention: Convention,
    activation: ActivationScheme,
) -> ConversionRecord:
    weights, biases = {}, {}
    for name in track(names, "reading"):
        scale = _scale(tensors, name, convention)
        weights[name] = OneBitWeight(
            f"{tensors.folder}: {name}.weight", _codes(tensors, name), torch.tensor([[scale]], dtype=torch.float32)
        )
        if f"{name}.bias" in tensors.places and convention.linear_class == "autobitlinear":
            biases[f"{name}.bias"] = tensors.read(f"{name}.bias").float() * scale
    used = {f"{name}.weight" for name in names} | {f"{name}.weight_scale" for name in names}
    floats = {**dict(tensors.floats(names, used)), **biases}
    return fill_one_bit(model, weights, floats, activation)


def _codes(tensors: _Tensors, name: str) -> Tensor:
    weight = tensors.read(f"{name}.weight")
    if weight.dtype == torch.uint8:
        try:
            return unpack_strided(weight)
        except FormatError as error:
            raise FormatError(f"{tensors.folder}: {name}.weight: {error}") from None
    codes = weight.to(torch.int8)
    if not torch.equal(codes.to(weight.dtype), weight) or bool((codes.abs() > 1).any()):
        raise FormatError(
            f"{tensors.folder}: {name}.weight is neither packed nor made of -1, 0 and +1, and it has a weight_scale. "
            "If these are latent weights, `quantization_mode` in config.json has to say online."
        )
    return codes


def _scale(tensors: _Tensors, name: str, convention: Convention) -> float:
    key = f"{name}.weight_scale"
    if key not in tensors.places:
        raise FormatError(
            f"{tensors.folder} has no {key}, without which the size of {name}'s weights is unknown. Download it again, "
            "or name the layer in `modules_to_not_convert` of config.json if it is a plain one."
        )
    value = tensors.read(key)
    if value.numel() != 1 or not value.is_floating_point():
        raise FormatError(f"{tensors.folder}: {key} is {value.dtype} {list(value.shape)}; one number is needed.")
    try:
        return from_weight_scale(float(value.float()), convention.linear_class)
    except FormatError as error:
        raise FormatError(f"{tensors.folder}: {key}: {error}") from None


def _convention(folder: Path, content: Mapping[str, Any]) -> Convention:
    linear_class, mode = content.get("linear_class", "bitlinear"), content.get("quantization_mode", "offline")
    if linear_class not in _LINEAR_CLASSES or mode not in ("offline", "online"):
        raise FormatError(
            f"{folder}: `linear_class={linear_class}`, `quantization_mode={mode}` in config.json are not known. "
            f"Allowed: {', '.join(_LINEAR_CLASSES)}; offline, online."
        )
    if content.get("use_rms_norm"):
        raise FormatError(
            f"{folder} normalises the input of every 1-bit layer inside it (`use_rms_norm`); layers here have no norm "
            "of their own. Models whose norms are modules, such as `attn_sub_norm`, are read."
        )
    kept = content.get("modules_to_not_convert")
    if kept is not None and not _are_plain(kept):
        raise FormatError(f"{folder}: `modules_to_not_convert` in config.json must be a list of module names.")
    online = mode == "online" and linear_class == "autobitlinear"
    return Convention(linear_class, online, None if kept is None else tuple(kept))


def _are_plain(kept: Any) -> bool:
    """Whether these are names with at most a `*`: transformers takes any regular expression, and some never end."""
    return isinstance(kept, list) and all(isinstance(name, str) and _PLAIN_PATTERN.fullmatch(name) for name in kept)


def _one_bit_names(model: PreTrainedModel, convention: Convention) -> list[str]:
    """The linears that transformers would replace, by its own rule."""
    kept = get_keys_to_not_convert(model) if convention.kept is None else list(convention.kept)
    kept += model._keep_in_fp32_modules or []
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and should_convert_module(name, kept)
    ]


def _check_sizes(folder: Path, content: Mapping[str, Any], tensors: _Tensors) -> None:
    """Raise FormatError when config.json describes a larger model than the tensors are."""
    limits = {"num_hidden_layers": len(tensors.places), **dict.fromkeys(_SIZES, 4 * tensors.largest)}
    for key, limit in limits.items():
        value = content.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit):
            raise FormatError(
                f"{folder / 'config.json'} is damaged: `{key}` is {value!r}, but the {len(tensors.places)} tensors "
                f"beside it allow 1 to {limit}."
            )


def _config_and_tokenizer(folder: Path) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of any kind: the files are taken apart without a look at them
        raise _unreadable(folder, "config and tokenizer", error) from error
    vars(config).pop("quantization_config", None)
    drop_padding_beyond(config)
    return config, tokenizer


def _skeleton(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return empty_model(config, dtype)
    except Exception as error:  # of any kind: sizes that contradict each other fail wherever they meet
        raise _unreadable(folder, "a model", error) from error


def _unreadable(folder: Path, what: str, error: Exception) -> FormatError:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
    return FormatError(f"transformers cannot make {what} of {folder}: {reason}.")


class _Tensors:
    """The tensors of a folder by name, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, Path] = {}
        self.largest = 0
        for path in weight_files(folder):
            self._list(path)

    def _list(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  not a dictionary
                    if name in self.places:
                        raise FormatError(f"{self.folder} has {name} in {self.places[name].name} and in {path.name}.")
                    self.places[name] = path
                    self.largest = max(self.largest, *file.get_slice(name).get_shape(), 0)
        except (OSError, SafetensorError) as error:
            raise FormatError(f"{path} cannot be read: {error}. Download it again.") from error

    def read(self, name: str) -> Tensor:
        path = self.places[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise FormatError(f"{path}: {name} cannot be read: {error}. Download it again.") from error

    def floats(self, one_bit: list[str], used: set[str] | tuple[()]) -> Iterator[tuple[str, Tensor]]:
        """Every other tensor. Raises FormatError for a packed one that no layer claims."""
        for name in self.places:
            if name in used or _COMPUTED.fullmatch(name):
                continue
            tensor = self.read(name)
            if not tensor.is_floating_point():
                raise FormatError(
                    f"{self.folder}: {name} is {tensor.dtype}, but its layer is none of the {len(one_bit)} that "
                    "config.json makes 1-bit."
                )
            yield name, tensor
