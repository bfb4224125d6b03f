from __future__ import annotations

from typing import Any

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.train.data.row_shape import FieldNames
from bitnet_train.train.data.settings import DataConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "disk"}, r"`data\.source=disk` is not a known choice\. Allowed: stdlib, files, hub, self"),
        ({"kind": "poem"}, r"`data\.kind=poem` is not a known choice\. Allowed: auto, text, chat, instruction"),
        ({"source": "files"}, r"`data\.source=files` needs `data\.path`"),
        ({"source": "hub"}, r"`data\.source=hub` needs `data\.path`"),
        ({"context_tokens": 4}, r"`data\.context_tokens=4` is out of range: it must be 8 or more"),
        ({"min_tokens": 300}, r"`data\.min_tokens=300` must lie in 2 \.\.\. context_tokens=256"),
        ({"validation_fraction": 1.0}, r"`data\.validation_fraction=1\.0` is out of .* must be at least 0 and below 1"),
        ({"max_documents": 0}, r"`data\.max_documents=0` is out of range: it must be 1 or more"),
        ({"max_train_rows": 0}, r"`data\.max_train_rows=0` is out of range: it must be 1 or more"),
        ({"max_validation_rows": -1}, r"`data\.max_validation_rows=-1` is out of range: it must be 1 or more"),
    ],
)
def test_values_that_cannot_work_are_refused_by_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**values)


def test_the_field_names_are_handed_on() -> None:
    config = DataConfig(
        text_field="t", messages_field="m", prompt_field="p", input_field="i", answer_field="a", system_field="s"
    )
    assert config.field_names == FieldNames(text="t", messages="m", prompt="p", input="i", answer="a", system="s")
