"""The choice of a kernel: the table is what is exposed, any row can be forced, a wrong name is explained."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bitnet_train.errors import KernelError
from bitnet_train.kernels import isa, ops
from tests.kernels.csrc import kernel_rows

NEEDS_EXTENSION = pytest.mark.skipif(isa.core is None, reason="the extension is not built")
ASK = "from bitnet_train.kernels import ops; print(ops.backend())"


def ask_backend(environment: str | None, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Ask a fresh interpreter which kernel it chose, with BITNET_TRAIN_ISA as given, whatever it is here."""
    setting = "" if environment is None else f"import os; os.environ['BITNET_TRAIN_ISA'] = {environment!r}; "
    command = [sys.executable, "-c", f"{prelude}{setting}{ASK}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=without_isa())


def without_isa() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "BITNET_TRAIN_ISA"}


@NEEDS_EXTENSION
def test_every_line_of_the_table_is_compiled_in_order():
    compiled = isa.core.compiled_isas()
    rows = [(name, isa_name) for name, isa_name, _runs in isa.core.kernels()]
    written = [(row.name, row.isa) for row in kernel_rows() if (row.macro, row.family) == ("KERNEL", "products")]
    assert [row for row in written if row in rows] == rows
    assert compiled == list(dict.fromkeys(isa_name for _name, isa_name in rows))
    assert compiled[-1] == "portable"


@NEEDS_EXTENSION
def test_the_kernels_of_this_cpu_come_best_first_and_end_with_the_reference():
    supported = isa.core.supported_isas()
    assert [name for name in isa.core.compiled_isas() if name in supported] == supported
    assert ops.available_isas() == (*supported, "reference")


@NEEDS_EXTENSION
def test_c_and_python_agree_on_the_largest_group():
    from bitnet_train.kernels.reference import MAX_GROUP_SIZE

    assert isa.core.MAX_GROUP_SIZE == MAX_GROUP_SIZE


@pytest.mark.parametrize("name", ops.available_isas())
def test_each_kernel_can_be_forced_and_is_given_back(name):
    before = ops.backend()
    with ops.forced_isa(name):
        assert ops.backend() == name
    assert ops.backend() == before


@pytest.mark.slow
def test_the_environment_forces_a_kernel_at_first_use():
    worst = ops.available_isas()[-2:][0]
    assert ask_backend(worst).stdout.split() == [worst]


@pytest.mark.slow
def test_an_empty_environment_lets_the_cpu_decide():
    assert ask_backend("").stdout.split() == [ops.available_isas()[0]]


@pytest.mark.slow
def test_an_unknown_name_in_the_environment_is_refused_with_the_allowed_ones():
    message = ask_backend("sse9").stderr
    assert "KernelError: `BITNET_TRAIN_ISA=sse9` is not a known instruction set" in message or isa.core is None
    assert f"Allowed here: {', '.join(ops.available_isas())}." in message


def test_forcing_an_unknown_name_changes_nothing():
    before = ops.backend()
    with pytest.raises(KernelError, match="`forced_isa=sse9`"), ops.forced_isa("sse9"):
        pass
    assert ops.backend() == before


@pytest.mark.slow
def test_without_the_extension_the_reference_runs_and_says_so_once():
    hide = "import sys; sys.modules['bitnet_train.kernels._core'] = None; "
    result = ask_backend(None, prelude=hide)
    assert result.stdout.split() == ["reference"]
    assert result.stderr.count("RuntimeWarning: The compiled kernels of bitnet_train are not installed") == 1
    twice = subprocess.run(
        [sys.executable, "-W", "always", "-c", f"{hide}{ASK}; print(ops.backend())"],
        capture_output=True, text=True, check=True, env=without_isa(),
    )  # fmt: skip
    assert twice.stderr.count("RuntimeWarning") == 1


@pytest.mark.slow
def test_choosing_the_reference_on_purpose_does_not_warn():
    hide = "import sys; sys.modules['bitnet_train.kernels._core'] = None; "
    assert "RuntimeWarning" not in ask_backend("reference", prelude=hide).stderr
