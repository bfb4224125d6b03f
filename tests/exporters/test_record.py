from __future__ import annotations

import json

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.exporters.record import ExportRecord, files_of, read_record, verify_export
from bitnet_train.packed.manifest import FileEntry
from bitnet_train.packed.names import EXPORT_NAME


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"\x01\x02\x03")
    record = ExportRecord(
        "plain", {"dtype": "bfloat16"}, {"recipe": "mine"}, {"torch": "2"}, files_of(tmp_path), {"n": 1}
    )
    (tmp_path / EXPORT_NAME).write_text(record.to_json())
    return tmp_path


def test_a_record_reads_back_as_it_was_written(folder):
    record = read_record(folder)
    assert record.files == {"weights.bin": FileEntry(3, files_of(folder)["weights.bin"].sha256)}
    assert ExportRecord.from_json(record.to_json()) == record
    assert verify_export(folder) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.pop("facts"), "facts"),
        (lambda body: body.update(schema=2), "schema 2"),
        (lambda body: body.update(format=3), "format"),
        (lambda body: body.update(stranger=3), "stranger"),
        (lambda body: body["files"].update({"../escape": {"num_bytes": 1, "sha256": "0" * 64}}), "plain file name"),
        (lambda body: body["files"]["weights.bin"].update(num_bytes=-1), "num_bytes"),
    ],
)
def test_a_record_that_is_wrong_names_what(folder, change, message):
    body = json.loads((folder / EXPORT_NAME).read_text())
    change(body)
    (folder / EXPORT_NAME).write_text(json.dumps(body))
    with pytest.raises(FormatError, match=message):
        read_record(folder)


def test_a_changed_a_cut_and_a_lost_file_are_named(folder):
    path = folder / "weights.bin"
    path.write_bytes(b"\x01\x02\x04")
    with pytest.raises(FormatError, match=r"weights\.bin was changed"):
        verify_export(folder)
    path.write_bytes(b"\x01")
    with pytest.raises(FormatError, match="1 bytes instead of 3"):
        verify_export(folder)
    path.unlink()
    with pytest.raises(FormatError, match=r"lost weights\.bin"):
        verify_export(folder)


def test_a_folder_without_a_record_says_so(tmp_path):
    with pytest.raises(FormatError, match=r"export\.json cannot be read"):
        read_record(tmp_path)
