"""`manifest.json`: what a packed folder holds, and the hash of every byte of it. Schema 1; with tables 2 or 3.

    {
      "schema": 1,                      integer; a reader refuses a newer one
      "format": "planes_v1",            byte layout of `<layer>.planes`, see `formats/planes.py`
      "manifest_sha256": "...",         over the canonical JSON of all other fields
      "created_by": {"bitnet_train": "0.1.0", "torch": ..., "transformers": ..., "python": ...},
      "base_model": "...", "recipe": "...",
      "model_class": "LlamaForCausalLM", "attention": "sdpa",
      "layers": [{"name": ..., "kind": "linear", "scheme": {...}, "activation": "int8", "num_outputs": N,
                  "num_inputs": K, "has_bias": false, "codes_sha256": ..., "scale_sha256": ...}],
      "tables": [{"name": ..., "kind": "embedding", "num_rows": V, "num_inputs": K, "has_bias": false,
                  "codes_sha256": ..., "scale_sha256": ...,                         schema 2 and 3, never empty
                  "bits": 4}],                                                      schema 3 only
      "tensors": {"<name>": {"dtype": "bfloat16", "shape": [..], "sha256": ...}},   in weights.safetensors
      "tied": {"lm_head.weight": "model.embed_tokens.weight"},                     alias -> stored name
      "files": {"config.json": {"num_bytes": .., "sha256": ...}, ...},              all but the manifest
      "sizes": {"packed_bytes": .., "scale_bytes": .., "fp16_bytes": .., "total_bytes": ..},
      "facts": {...}                    free: what the run said about itself
    }

`codes_sha256` is over the int8 codes [N,K] in row order, so it does not depend on the byte layout, and any exporter
can quote it; `scale_sha256` and a tensor's `sha256` are over its little-endian bytes as stored. Names of files are
plain: a manifest cannot point outside its folder. A flipped byte anywhere, the manifest included, is found.

A table is a token embedding or a head in 8 bits (`quant/int8_table.py`): `<name>.codes` int8 [V,K], `<name>.scale`
float16 [V], and with a bias `<name>.bias` float32 [V]. In 5 or 4 bits (`quant/narrow_table.py`) its codes are int8 too,
and hashed so, but stored as `formats/narrow_codes.py` says: `<name>.codes` uint8 [bits,V,ceil(K/8)] and
`<name>.multipliers` uint8 [V,ceil(K/64)]. Of a tied pair both are listed, and the head's tensors are aliases in `tied`.
A reader that knows schema 1 alone would lack the embedding, so a folder with tables says schema 2, and one with a table
of fewer than 8 bits schema 3; one without tables says schema 1 and is read by every version.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.packed.entries import FileEntry, LayerEntry, Sizes, TableEntry, TensorEntry
from bitnet_train.packed.entry_fields import (
    read_file,
    read_layer,
    read_sizes,
    read_table,
    read_table_of_bits,
    read_tensor,
)
from bitnet_train.packed.json_fields import Fields, parse_object, read_text
from bitnet_train.packed.names import MANIFEST_NAME, WEIGHTS_NAME, tied_names

SCHEMA = 3
FORMAT = "planes_v1"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class Manifest:
    """Everything `manifest.json` says; the fields are described at the top of this module."""

    created_by: dict[str, str]
    base_model: str
    recipe: str
    model_class: str
    attention: str
    layers: tuple[LayerEntry, ...]
    tensors: dict[str, TensorEntry]
    tied: dict[str, str]
    files: dict[str, FileEntry]
    sizes: Sizes
    facts: dict[str, Any]
    tables: tuple[TableEntry, ...] = ()

    def stored_name(self, name: str) -> str:
        """Return under which name a tensor is stored: its own, or the one it is tied to."""
        return self.tied.get(name, name)

    @property
    def sha256(self) -> str:
        """The `manifest_sha256` that seals every other field, and by the hashes among them the whole folder."""
        return _body_sha256(_to_body(self))

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return seal(_to_body(self))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse `manifest.json`; a FormatError says which field is missing, unknown, wrong or from a newer version."""
        body = parse_object(text, MANIFEST_NAME)
        _check_version(body)
        stated = body.pop("manifest_sha256", None)
        if stated != _body_sha256(body):
            raise FormatError(
                f"{MANIFEST_NAME} does not match its own `manifest_sha256`: it was edited or damaged. "
                "Copy the folder again."
            )
        return _from_body(body)


def sha256_of(data: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def seal(body: dict[str, Any]) -> str:
    """Return the text of a manifest with these fields and the hash over them."""
    return json.dumps({**body, "manifest_sha256": _body_sha256(body)}, indent=1, allow_nan=False) + "\n"


def _body_sha256(body: dict[str, Any]) -> str:
    return sha256_of(json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def _to_body(manifest: Manifest) -> dict[str, Any]:
    body = asdict(manifest)
    body["layers"] = [
        {**asdict(layer), "scheme": layer.scheme.to_dict(), "activation": layer.activation.name}
        for layer in manifest.layers
    ]
    schema = _schema_of(manifest.tables)
    if schema < 3:
        body["tables"] = [{key: value for key, value in table.items() if key != "bits"} for table in body["tables"]]
    if schema < 2:
        del body["tables"]
    body = {"schema": schema, "format": FORMAT, **body}
    return json.loads(json.dumps(body, allow_nan=False))  # tuples become lists, as the reader will see them


def _schema_of(tables: tuple[TableEntry, ...]) -> int:
    """Return the lowest that says everything: earlier versions read what they can."""
    return 1 if not tables else 2 if all(table.bits == 8 for table in tables) else 3


def _check_version(body: dict[str, Any]) -> None:
    schema, layout = body.get("schema"), body.get("format")
    if type(schema) is not int or schema < 1:
        raise FormatError(f"{MANIFEST_NAME}: `schema` must be a positive integer, not {schema!r}.")
    if schema > SCHEMA:
        raise FormatError(
            f"This folder was written by a newer version: {MANIFEST_NAME} has schema {schema}, and this version reads "
            f"up to {SCHEMA}. Upgrade: `pip install --upgrade bitnet-train`."
        )
    if layout != FORMAT:
        raise FormatError(
            f"{MANIFEST_NAME} says format {layout!r}; this version reads {FORMAT!r}. "
            "Upgrade, or export the model again with this version."
        )


def _from_body(body: dict[str, Any]) -> Manifest:
    fields = Fields(body, MANIFEST_NAME)
    schema = fields.take("schema", int)
    fields.take("format", str)
    manifest = Manifest(
        created_by=fields.take_map("created_by", read_text),
        base_model=fields.take("base_model", str),
        recipe=fields.take("recipe", str),
        model_class=fields.take("model_class", str),
        attention=fields.take("attention", str),
        layers=fields.take_list("layers", read_layer),
        tensors=fields.take_map("tensors", read_tensor),
        tied=fields.take_map("tied", read_text),
        files=fields.take_map("files", read_file),
        sizes=read_sizes(fields.take("sizes", dict)),
        facts=fields.take("facts", dict),
        tables=fields.take_list("tables", read_table if schema == 2 else read_table_of_bits) if schema > 1 else (),
    )
    fields.done()
    if schema != (lowest := _schema_of(manifest.tables)):
        raise FormatError(f"{MANIFEST_NAME} has schema {schema} and `tables` that schema {lowest} says.")
    _check_names(manifest)
    _check_tables(manifest)
    return manifest


def _check_names(manifest: Manifest) -> None:
    """Check that files have plain names, that no layer appears twice, and that what is referred to is there."""
    for name in manifest.files:
        if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_NAME:
            raise FormatError(
                f"{MANIFEST_NAME}: {name!r} is not a plain file name. A packed folder only names files inside itself; "
                "do not use this one."
            )
    if WEIGHTS_NAME not in manifest.files:
        raise FormatError(f"{MANIFEST_NAME}: `files` does not name {WEIGHTS_NAME}.")
    names = [*(layer.name for layer in manifest.layers), *(table.name for table in manifest.tables)]
    if len(set(names)) != len(names):
        raise FormatError(f"{MANIFEST_NAME}: a layer is named twice.")
    needed = {name for layer in manifest.layers for name in layer.tensor_names}
    missing = sorted((needed | set(manifest.tied.values())) - set(manifest.tensors))
    if missing:
        raise FormatError(f"{MANIFEST_NAME}: `tensors` lacks {missing[0]!r}, which a layer needs.")


def _check_tables(manifest: Manifest) -> None:
    """Check that there is at most one table of each kind, that its tensors are there in its shape, and tied whole."""
    kinds = [table.kind for table in manifest.tables]
    if len(set(kinds)) != len(kinds):
        raise FormatError(f"{MANIFEST_NAME}: `tables` has two of kind {kinds[0]}; a model has one embedding, one head.")
    for table in manifest.tables:
        for name, (dtype, shape) in table.tensors.items():
            entry = manifest.tensors.get(manifest.stored_name(name))
            if entry is None or (entry.dtype, entry.shape) != (dtype, shape):
                found = "is not there" if entry is None else f"is {entry.dtype} {list(entry.shape)}"
                raise FormatError(f"{MANIFEST_NAME}: {name!r} must be {dtype} {list(shape)} for a table, but {found}.")
    parts = {name for table in manifest.tables for name in table.tensors}
    aliases = {alias: name for alias, name in manifest.tied.items() if {alias, name} & parts}
    if aliases and aliases not in _whole_ties(manifest.tables):
        raise FormatError(
            f"{MANIFEST_NAME}: `tied` says {aliases}; of two tables, codes and scale of one can be those of the other, "
            "and nothing else."
        )


def _whole_ties(tables: tuple[TableEntry, ...]) -> list[dict[str, str]]:
    return [tied_names(alias.name, table.name, table.bits) for alias in tables for table in tables if alias != table]
