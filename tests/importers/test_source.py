"""A source that is written down names the same model from every working directory."""

from pathlib import Path

import pytest

from bitnet_train.errors import ConversionError
from bitnet_train.importers.load import load_mapped, load_pretrained
from bitnet_train.importers.source import looks_like_path, public_name, settled_source


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "models" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", ["models/llama", "./models/llama", "models", "models/llama/../llama"])
def test_what_is_there_is_written_down_from_the_root(source, here):
    assert settled_source(source) == str(here / source)
    assert Path(settled_source(source)).is_dir()


@pytest.mark.parametrize("source", ["./gone", "a/b/c", "gone.gguf", "models/gone.GGUF"])
def test_what_can_only_be_a_path_is_one_though_it_is_not_there(source, here):
    assert settled_source(source) == str(here / source)


@pytest.mark.parametrize("source", ["gpt2", "models/other", "HuggingFaceTB/SmolLM2-135M"])
def test_what_is_not_there_and_may_be_a_name_on_the_hub_is_marked_as_one(source):
    assert settled_source(source) == f"hub:{source}"
    assert settled_source(f"hub:{source}") == f"hub:{source}"
    assert not looks_like_path(f"hub:{source}")


def test_the_bundled_model_stays_a_word():
    assert settled_source("tiny") == "tiny"


@pytest.mark.parametrize("read", [load_pretrained, load_mapped])
def test_a_name_on_the_hub_is_not_taken_for_a_folder_that_is_called_so_here(read):
    with pytest.raises(ConversionError, match="cannot be loaded as a hub id"):
        read("hub:models/llama")


@pytest.mark.parametrize("read", [load_pretrained, load_mapped])
def test_a_folder_that_is_gone_is_never_asked_for_on_the_hub(read, here, monkeypatch):
    source = settled_source("models/llama")
    monkeypatch.chdir("/")
    (here / "models" / "llama").rmdir()
    with pytest.raises(ConversionError, match="there is no such directory"):
        read(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [("tiny", "tiny"), ("hub:org/name", "org/name"), ("org/name", "org/name"), ("/home/me/secret/llama", "llama")],
)
def test_what_others_read_does_not_say_where_a_folder_lies(source, name):
    assert public_name(source) == name
