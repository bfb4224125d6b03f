import pytest

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.select import ROLES, Selection, candidates, check_patterns, is_selected, layer_role, matches

from .families import CONFIGS, LEAVES, tiny_model


def roles_of(model):
    return {name: layer_role(model, name, module) for name, module in candidates(model).items()}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_block_linear_has_its_role(family):
    roles = roles_of(tiny_model(family))
    for role, leaves in LEAVES[family].items():
        found = [name for name, given in roles.items() if given == role]
        assert sorted(name.rpartition(".")[2] for name in found) == sorted(2 * leaves)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_head_and_the_token_embedding_are_found(family):
    roles = roles_of(tiny_model(family))
    assert [name for name, role in roles.items() if role == "head"] == ["lm_head"]
    assert [name for name, role in roles.items() if role == "embedding"] in (
        ["model.embed_tokens"],
        ["transformer.wte"],
    )


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("model.layers.0.mlp.up_proj", True),
        ("mlp.up_proj", True),
        ("up_proj", True),
        ("*up_proj", True),
        ("layers.0.*", True),
        ("layers.?.mlp.*", True),
        ("up", False),
        ("p.up_proj", False),
        ("layers.1.*", False),
    ],
)
def test_a_pattern_is_a_glob_over_the_name_or_a_dotted_tail(pattern, fits):
    assert matches("model.layers.0.mlp.up_proj", pattern) is fits


@pytest.mark.parametrize(
    ("selection", "role", "expected"),
    [
        (Selection(), "mlp", (True, "role mlp")),
        (Selection(), "head", (False, "role head is not selected")),
        (Selection(include=("up_proj",)), "mlp", (True, "included by 'up_proj'")),
        (Selection(include=("q_proj",)), "mlp", (False, "matches no include pattern")),
        (Selection(include=("up_proj",), exclude=("layers.0.*",)), "mlp", (False, "excluded by 'layers.0.*'")),
        (Selection(), "other", (False, "not part of a known role")),
        (Selection(include=("up_proj",)), "other", (True, "included by 'up_proj'")),
    ],
)
def test_selection_is_role_and_include_and_not_exclude(selection, role, expected):
    assert is_selected("model.layers.0.mlp.up_proj", role, selection) == expected


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_names_the_closest_layers(key):
    roles = {f"model.layers.{i}.mlp.{leaf}": "mlp" for i in range(30) for leaf in ("gate_proj", "up_proj")}
    with pytest.raises(ConversionError) as caught:
        check_patterns(Selection(**{key: ("up_proj", "mlp.gate")}), roles, "LlamaForCausalLM")
    assert f"`model.{key}[1]='mlp.gate'` matched no layer in LlamaForCausalLM" in str(caught.value)
    assert "model.layers.*.mlp.gate_proj (30 layers)" in str(caught.value)


def test_an_include_that_only_matches_unselected_roles_says_which_role_to_add():
    with pytest.raises(ConversionError, match=r"matched only layers of role head .*Add the role"):
        check_patterns(Selection(include=("lm_head",)), {"lm_head": "head", "model.layers.0.q": "attention"}, "Llama")


@pytest.mark.parametrize("roles", [("attentoin",), ()])
def test_an_unknown_or_empty_role_list_is_refused(roles):
    with pytest.raises(ConfigError, match=r"`model.roles=.*attention, mlp, head, embedding"):
        Selection(roles=roles)


def test_a_selection_survives_its_dictionary():
    selection = Selection(include=("a", "b"), exclude=("c",), roles=ROLES)
    assert Selection.from_dict(selection.to_dict()) == selection
