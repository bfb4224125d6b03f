"""What the stages of one process share: models and text, each loaded when it is first asked for, and once.

A stage alone makes a session of its own; `run` hands one to all its stages. Nothing is in a session that another
process could not read from the same files, so a run that is continued later computes the same.

Training may change the model that it compares with: bf16 rounds its products in place, and a GPU takes it away. Such a
model is not handed on but loaded again, for a second one in memory while the first teaches would cost more than the
reading does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from bitnet_train.config import Config
from bitnet_train.importers.load import LoadedModel, load_pretrained
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.runtime.load import load as load_packed
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.support import reason_against
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.trackers.run_trackers import RunTrackers


class Session:
    """The original, the text and the packed model of one run."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._original: LoadedModel | None = None
        self._data: BitDataModule | None = None
        self._packed: dict[Path, PreTrainedModel] = {}
        self.trackers: RunTrackers | None = None
        self.keeps_trackers = False  # `run.tracked` opens and closes them

    def original(self) -> LoadedModel:
        """Return the model to start from as its file has it, float32 on the CPU; convert a copy, not this one."""
        if self._original is None or not _is_as_loaded(self._original.model):
            self._original = None  # before the next one takes its memory
            self._original = load_pretrained(self._config.model.source)
        return self._original

    def data(self, directory: RunDirectory) -> BitDataModule:
        """Return the data module of the run, whose text is read and cut into rows once."""
        if self._data is None:
            self._data = assembly.data_module(self._config, self.original(), directory)
        return self._data

    def packed(self, folder: Path) -> PreTrainedModel:
        """Return the packed model as transformers runs it, every byte of its folder checked."""
        if folder not in self._packed:
            self._packed[folder] = load_packed(folder)
        return self._packed[folder]

    def native(self, folder: Path) -> NativeModel | None:
        """Return the packed model as the native runtime runs it, None where its architecture is unknown there."""
        if reason_against(folder) is not None:
            return None
        is_checked = folder in self._packed
        return NativeModel.load(folder, num_threads=torch.get_num_threads(), verify=not is_checked)


def _is_as_loaded(model: nn.Module) -> bool:
    return all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in model.parameters())
