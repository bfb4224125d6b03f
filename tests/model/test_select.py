import pytest
import torch

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.patterns import ROLES
from bitnet_train.model.select import candidates, check_patterns, is_selected, layer_roles, matches
from bitnet_train.model.settings import Selection
from tests.fixtures.families import CONFIGS, LEAVES, mixture_model, tiny_model, vision_model


def roles_of(model):
    return layer_roles(model, candidates(model))


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


def test_only_the_language_model_of_a_model_with_pictures_has_roles():
    roles = roles_of(vision_model())
    towers = {name for name, role in roles.items() if role == "tower"}
    assert towers == {
        name for name in roles if name.startswith(("model.vision_tower.", "model.multi_modal_projector."))
    }
    assert len(towers) > 12
    blocks = [name for name in roles if name.startswith("model.language_model.layers.")]
    assert {roles[name] for name in blocks} == {"attention", "mlp"}
    assert roles["lm_head"] == "head"
    assert roles["model.language_model.embed_tokens"] == "embedding"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.0.mlp.shared_expert_gate", "router"),
        ("model.layers.0.mlp.gate", "router"),
        ("model.layers.0.mlp.gate.wg", "router"),
        ("model.layers.0.block_sparse_moe.router.layer", "router"),
        ("model.layers.0.ffn.router_gate", "router"),
        ("model.layers.0.mlp.gate_proj", "mlp"),
        ("model.layers.0.mlp.experts.3.gate_proj", "mlp"),
        ("model.layers.0.mlp.gate_up_proj", "mlp"),
        ("model.layers.0.self_attn.q_proj", "attention"),
    ],
)
def test_gates_and_routers_have_a_role_of_their_own(name, role):
    assert layer_roles(tiny_model(), {name: torch.nn.Linear(4, 4)}) == {name: role}


def test_the_gate_of_a_shared_expert_is_no_part_of_its_mlp():
    roles = roles_of(mixture_model("qwen2_moe"))
    assert {name.rpartition(".")[2] for name, role in roles.items() if role == "router"} == {"shared_expert_gate"}


@pytest.mark.parametrize("role", ["tower", "router"])
def test_towers_and_routers_become_1_bit_only_where_a_pattern_names_them(role):
    assert is_selected("model.layers.0.mlp.gate", role, Selection(roles=ROLES))[0] is False
    assert is_selected("model.layers.0.mlp.gate", role, Selection(include=("mlp.gate",))) == (
        True,
        "included by 'mlp.gate'",
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
