"""A choice of layers as a packed folder, for the native runtime: embedding and head in int8, as a run leaves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel

from bitnet_train.model.convert import replace_layers
from bitnet_train.model.rounded_table import round_floats
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.surrogate import Identity
from bitnet_train.serve.playground.workbench.measured import ACTIVATION
from bitnet_train.serve.playground.workbench.opened import Opened


@contextmanager
def packed(opened: Opened, schemes: Mapping[str, WeightScheme], scratch: Path) -> Iterator[Path]:
    """Yield a packed folder of the model, with these layers swapped where they are float; it goes with the block."""
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch) as folder:
        model = deepcopy(opened.model)
        if not opened.is_one_bit:
            replace_layers(model, schemes, ACTIVATION, Identity())
            round_floats(model, "int8")
        yield _exported(model, opened, Path(folder) / "packed")


def _exported(model: PreTrainedModel, opened: Opened, folder: Path) -> Path:
    export_packed(model, opened.tokenizer, folder, {"base_model": "playground"})
    return folder
