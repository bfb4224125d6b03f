from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BloomConfig, BloomForCausalLM

from bitnet_train.config.compose import compose
from bitnet_train.errors import ConfigError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.run.assembly import Student, plan_of, training_module
from tests.fixtures.data_examples import make_llama, make_tokenizer


def saved(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_teacher_that_mixes_the_documents_of_a_row_is_refused_where_rows_are_packed(tmp_path: Path) -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3))
    source, teacher = saved(tmp_path / "llama", make_llama()), saved(tmp_path / "bloom", bloom)
    config = compose("quickstart", [f"model.source={source}", f"teacher.source={teacher}", "loss=kl"]).config
    original = load_pretrained(str(source))
    student: Any = Student(original.model, None, None, original.tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`teacher\.source=.*bloom`: BloomForCausalLM lets .* `data\.packing=never`"):
        training_module(config, student, original, packed=True)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ("int8", "int8 per row, "),
        ("int5", "int5 per row in groups of 32, "),
        ("int4", "int4 per row in groups of 32, "),
    ],
)
def test_the_plan_says_what_a_table_is_rounded_to(tables: str, said: str) -> None:
    config = compose("quickstart", [f"weight.tables={tables}"]).config
    original = load_pretrained(config.model.source)
    (note,) = (note for note in plan_of(config, original).notes if "rounded" in note)
    assert said in note
