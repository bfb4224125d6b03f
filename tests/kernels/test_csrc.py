"""The tables of the C++ sources: rows and files belong together, and a predicate asks for what its flags allow."""

from __future__ import annotations

import re

import pytest

from bitnet_train.kernels import isa
from tests.kernels.csrc import CSRC, FEATURES, TABLE, feature_flags, kernel_rows

ROWS = list(kernel_rows())
ISAS = list(dict.fromkeys(row.isa for row in ROWS))
TABLES = sorted(CSRC.rglob("*.inc"))
ROW = re.compile(r"(KERNEL|PART)\(\w+, \w+, \w+, [\w. &]+\)|FEATURE\(\w+,\s+\"[^\"]*\",\s+\"[^\"]*\"\)")
FLOORS = {
    "core": 0, "attention": 1, "products": 1, "int8": 1, "int8_matrix": 1, "fake_quantize": 1, "bandwidth": 1,
    "pointwise": 1, "model": 2, "training": 2, "bindings": 3, "selftest": 3, "standalone": 3,
}  # fmt: skip
NEEDS_EXTENSION = pytest.mark.skipif(isa.core is None, reason="the extension is not built")


def test_every_row_has_its_file_and_every_file_for_an_instruction_set_its_row():
    files = {path for path in CSRC.rglob("*.cpp") if path.stem.rpartition("_")[2] in ISAS}
    assert {row.source for row in ROWS} == files


def test_every_row_defines_the_kernel_it_names():
    for row in ROWS:
        defined = re.search(rf"^extern const \w+ kernel_{row.name}_{row.isa}\b", row.source.read_text(), re.MULTILINE)
        assert (defined is not None) == (row.macro == "KERNEL"), row


def test_a_predicate_names_known_features_only_and_portable_rows_none():
    assert {feature for row in ROWS for feature in row.features} == set(feature_flags())
    assert {row.isa for row in ROWS if not row.features} == {"portable"}


def test_every_family_ends_with_a_portable_kernel_and_keeps_the_order_of_instruction_sets():
    for family in {row.family for row in ROWS}:
        ranks = [ISAS.index(row.isa) for row in ROWS if row.family == family]
        assert ranks == sorted(ranks), family
        assert ranks[-1] == ISAS.index("portable"), family


def test_an_inc_file_is_a_table_and_nothing_else():
    assert {TABLE, FEATURES} == set(TABLES)
    for table in TABLES:
        text = re.sub(r"^(//.*|#ifdef \w+|#endif)$", "", table.read_text(), flags=re.MULTILINE)
        assert ROW.sub("", text).split() == [], table.name


def test_includes_name_the_folder_and_go_down_only():
    for path in [*CSRC.rglob("*.h"), *CSRC.rglob("*.cpp")]:
        folder = path.parent.name
        for included in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
            other = included.partition("/")[0]
            assert (CSRC / included).is_file(), f"{path.name}: {included}"
            assert other in (folder, TABLE.name) or FLOORS[other] < FLOORS[folder], f"{path.name}: {included}"


def test_flags_of_an_instruction_set_stand_in_the_table_only():
    for path in [CSRC / "CMakeLists.txt", *CSRC.glob("*.cmake")]:
        assert re.findall(r"-m(?!arch=armv8-a)\w+", path.read_text()) == [], path.name


@NEEDS_EXTENSION
@pytest.mark.parametrize(
    ("family", "exposed"),
    [
        ("attention", "int8_attention_isas"),
        ("int8", "int8_isas"),
        ("int8_matrix", "int8_matrix_isas"),
        ("model", "float_isas"),
    ],
)
def test_a_family_offers_the_instruction_sets_of_its_rows_best_first(family: str, exposed: str):
    offered = getattr(isa.core, exposed)()
    written = [row.isa for row in ROWS if row.family == family]
    assert [name for name in written if name in offered] == offered
    assert offered[-1] == "portable"
