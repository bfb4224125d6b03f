"""`quant_method: bitnet_train`: how `AutoModelForCausalLM.from_pretrained(packed_folder)` gives the model of `load`.

config.json of a packed folder names this method. Once this package is imported, transformers finds it in its registry;
without it, transformers warns of an unknown method, and stops with an error that quotes the way out, as it stands in
config.json in place of a weights file: there is no way to a model with random weights. `import bitnet_train` registers
it (`when_imported`).

    the weights file    transformers is pointed to `weights.safetensors` for this one load
    before loading      packed layers and int8 tables step aside, so that no float weight of theirs is ever allocated
    after loading       `load.fill_model` puts everything in, floats too: in float32 and in memory of their own, which
                        is why the logits are those of `load`, bit for bit

The model cannot be trained or saved: it has no latent weights, and the folder it came from is already all there is.
Imported in the middle of transformers' own import, so what needs transformers or torch is imported inside functions.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from bitnet_train.errors import ConfigError, ConversionError, FormatError
from bitnet_train.packed.manifest import FORMAT, Manifest
from bitnet_train.packed.names import MANIFEST_NAME, WEIGHTS_NAME
from bitnet_train.word_as_path import is_folder

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

METHOD = "bitnet_train"

_LOG = logging.getLogger(__name__)
_NOT_SAVED = (
    "A packed model holds no weights that `save_pretrained` could write. Copy the folder that it was loaded from, or "
    "write another format from it: `bitnet-train export FOLDER export=plain`."
)


class BitnetTrainConfig(QuantizationConfigMixin):
    """`quantization_config` in config.json: the byte layout, and the attention that the model was trained with."""

    def __init__(self, format: str = FORMAT, attention: str = "", **_: Any) -> None:
        self.quant_method: Any = METHOD
        self.format, self.attention = format, attention
        if format != FORMAT:
            raise FormatError(
                f"config.json says format {str(format)[:40]!r}; this version reads {FORMAT!r}. Upgrade: "
                "`pip install --upgrade bitnet-train`."
            )


class BitnetTrainQuantizer(HfQuantizer):
    """Loads a packed folder; each method is a question that `from_pretrained` asks, in this order."""

    requires_calibration = True
    quantization_config: BitnetTrainConfig
    _manifest: Manifest
    _folder: Path

    def update_device_map(self, device_map: dict[str, Any] | None) -> dict[str, Any] | None:
        """Raise ConfigError for a device other than the CPU, where the kernels run."""
        elsewhere = {str(device) for device in (device_map or {}).values()} - {"cpu"}
        if elsewhere and device_map != {"": "auto"}:
            raise ConfigError(
                f"`device_map` asks for {', '.join(sorted(elsewhere))}, and packed weights run on the CPU. Leave "
                "`device_map` out."
            )
        return device_map

    def update_attn_implementation(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Point to the weights file, and take the attention of the training run where the caller names none."""
        from bitnet_train.runtime.load import SAFE_ATTENTION

        config.transformers_weights = WEIGHTS_NAME
        if config._attn_implementation is None and self.quantization_config.attention in SAFE_ATTENTION:
            config._attn_implementation = self.quantization_config.attention
        return config

    def update_tp_plan(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The same, for versions of transformers that ask this instead."""
        return self.update_attn_implementation(config)

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return float32, whatever was asked for: a packed model computes what was trained."""
        import torch

        if dtype != torch.float32:
            _LOG.warning("A packed model is float32; `dtype=%s` is left out of account.", dtype)
        return torch.float32

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        from bitnet_train.runtime.load import check_shapes

        self._folder = _folder_of(model, kwargs.get("checkpoint_files"))
        self._manifest = _verified(self._folder, _is_local(model))
        check_shapes(model, self._manifest)
        names = [entry.name for entry in (*self._manifest.layers, *self._manifest.tables)]
        for name in names:
            model.set_submodule(name, _set_aside())
        aside = {f"{name}.weight" for name in names}
        model.all_tied_weights_keys = {
            alias: name for alias, name in model.all_tied_weights_keys.items() if not {alias, name} & aside
        }
        model._keys_to_ignore_on_load_unexpected = {
            *(model._keys_to_ignore_on_load_unexpected or ()),
            r"\.(planes|scale|codes|multipliers|bias)$",  # of layers that stepped aside; `fill_model` misses none
            r"inv_freq$",
        }
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        from bitnet_train.packed.reader import open_weights
        from bitnet_train.runtime.load import fill_model

        with open_weights(self._folder, self._manifest) as weights:
            fill_model(model, self._manifest, weights)
        vars(model.config).pop("transformers_weights", None)
        vars(model)["save_pretrained"] = _refuse_to_save
        return model

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is annotated by `...`
        """False: there are no weights to save, see `_NOT_SAVED`."""
        return False

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """False: a packed model has no latent weights."""
        return False

    def _dequantize(self, model: PreTrainedModel, dtype: Any = None) -> NoReturn:
        raise ConversionError(
            "A packed model is not turned back into floats in memory. Write dense weights and load those: "
            "`bitnet-train export FOLDER export=plain`."
        )


def _set_aside() -> nn.Module:
    """Return what stands for a layer while transformers loads: no parameters, and a weight that an `_init` may fill."""
    import torch

    empty = torch.nn.Module()
    vars(empty).update(weight=torch.empty(0, device="meta"), bias=None)
    return empty


def _folder_of(model: PreTrainedModel, checkpoint_files: list[str] | None) -> Path:
    """Return the folder with weights and manifest; from the hub, fetch the manifest into the cache beside them."""
    if not checkpoint_files:
        raise FormatError("A packed model is loaded from its folder: `from_pretrained(FOLDER)`, without `state_dict`.")
    folder = Path(checkpoint_files[0]).parent
    if not (folder / MANIFEST_NAME).is_file() and not _is_local(model):
        from transformers.utils.hub import cached_file

        cached_file(str(model.config.name_or_path), MANIFEST_NAME, revision=getattr(model.config, "_commit_hash", None))
    return folder


def _verified(folder: Path, is_local: bool) -> Manifest:
    """Return the manifest after a check of every file; from the hub of the weights, as not all files are fetched."""
    from bitnet_train.packed.reader import hash_file, read_manifest, verify_files

    if is_local:
        return verify_files(folder)
    manifest = read_manifest(folder)
    if hash_file(folder / WEIGHTS_NAME) != manifest.files[WEIGHTS_NAME].sha256:
        raise FormatError(f"{folder / WEIGHTS_NAME} is not the file that {MANIFEST_NAME} describes. Download it again.")
    return manifest


def _is_local(model: PreTrainedModel) -> bool:
    return is_folder(str(model.config.name_or_path))


def _refuse_to_save(*_: object, **__: object) -> NoReturn:
    raise ConversionError(_NOT_SAVED)


if METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
    register_quantization_config(METHOD)(BitnetTrainConfig)
    register_quantizer(METHOD)(BitnetTrainQuantizer)
