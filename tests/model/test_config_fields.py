"""The fields of a config under the names of each architecture."""

import pytest
from transformers import (
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
)

from bitnet_train.errors import ConversionError
from bitnet_train.model.config_fields import (
    drop_padding_beyond,
    hidden_size,
    max_positions,
    num_heads,
    num_key_value_heads,
    num_layers,
    vocab_size,
)

TEXT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
CONFIGS = {
    "llama": (LlamaConfig(**TEXT, vocab_size=97, max_position_embeddings=64), 64, 2),
    "bloom": (BloomConfig(vocab_size=97, hidden_size=48, n_layer=3, n_head=4), None, 4),
    "bloom of the hub": (BloomConfig(vocab_size=97, hidden_size=48, n_layer=3, n_head=4, seq_length=64), None, 4),
    "gpt2": (GPT2Config(vocab_size=97, n_embd=48, n_layer=3, n_head=4, n_positions=64), 64, 4),
    "mpt": (MptConfig(vocab_size=97, d_model=48, n_layers=3, n_heads=4, max_seq_len=64), 64, 4),
    "falcon": (FalconConfig(vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4), 2048, 1),
    "gpt_neox": (
        GPTNeoXConfig(
            vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64
        ),
        64,
        4,
    ),
    "opt": (
        OPTConfig(
            vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64
        ),
        64,
        4,
    ),
    "gemma3 with pictures": (
        Gemma3Config(text_config={**TEXT, "vocab_size": 97, "max_position_embeddings": 64}, vision_config={}),
        64,
        2,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_gives_its_sizes_under_one_name(name):
    config, positions, pairs = CONFIGS[name]
    assert (hidden_size(config), num_layers(config), num_heads(config), vocab_size(config)) == (48, 3, 4, 97)
    assert (max_positions(config), num_key_value_heads(config)) == (positions, pairs)


@pytest.mark.parametrize("stated", [0, -1])
def test_a_length_that_is_no_length_is_no_limit(stated):
    config = LlamaConfig()
    config.max_position_embeddings = stated
    assert max_positions(config) is None


def test_a_field_that_an_architecture_lacks_is_named():
    with pytest.raises(ConversionError, match=r"MambaConfig states none of num_attention_heads, n_head, n_heads"):
        num_heads(MambaConfig())


@pytest.mark.parametrize(("token", "kept"), [(0, 0), (96, 96), (97, None), (-1, None), (None, None)])
def test_a_padding_token_beyond_the_vocabulary_is_dropped(token, kept):
    config = LlamaConfig(vocab_size=97)
    config.pad_token_id = token
    drop_padding_beyond(config)
    assert config.pad_token_id == kept
