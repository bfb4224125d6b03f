from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from bitnet_train.when_imported import when_imported


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A package on the path that nobody has imported yet."""
    (tmp_path / "waited_for").mkdir()
    (tmp_path / "waited_for" / "__init__.py").write_text("before = 1\n")
    (tmp_path / "waited_for" / "inner.py").write_text("done = True\n")
    (tmp_path / "waited_for" / "broken.py").write_text("raise RuntimeError('broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.startswith("waited_for")]:
        del sys.modules[name]


@pytest.mark.usefixtures("modules")
def test_the_action_runs_once_and_at_the_end_of_the_import():
    seen = []
    when_imported("waited_for.inner", lambda: seen.append(sys.modules["waited_for.inner"].done))
    assert seen == []
    import_module("waited_for")
    assert seen == []
    module = import_module("waited_for.inner")
    import_module("waited_for.inner")
    assert seen == [True]
    assert module.__file__.endswith("inner.py")
    assert inspect.getsource(module) == "done = True\n"


@pytest.mark.usefixtures("modules")
def test_the_action_runs_at_once_where_the_module_is_there_already():
    import_module("waited_for.inner")
    seen = []
    when_imported("waited_for.inner", lambda: seen.append(1))
    assert seen == [1]


@pytest.mark.usefixtures("modules")
def test_two_actions_for_one_module_both_run():
    seen = []
    when_imported("waited_for.inner", lambda: seen.append(1))
    when_imported("waited_for.inner", lambda: seen.append(2))
    import_module("waited_for.inner")
    assert sorted(seen) == [1, 2]


@pytest.mark.usefixtures("modules")
def test_a_module_that_fails_or_does_not_exist_fails_as_ever():
    seen = []
    for name in ("waited_for.broken", "waited_for.missing"):
        when_imported(name, lambda: seen.append(1))
    with pytest.raises(RuntimeError, match="broken"):
        import_module("waited_for.broken")
    with pytest.raises(ModuleNotFoundError, match=r"waited_for\.missing"):
        import_module("waited_for.missing")
    assert seen == []


@pytest.mark.slow
@pytest.mark.parametrize("order", ["import bitnet_train, transformers", "import transformers.quantizers, bitnet_train"])
def test_transformers_knows_of_this_package_whichever_is_imported_first(order):
    code = f"{order}\nfrom transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m\nassert 'bitnet_train' in m"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
