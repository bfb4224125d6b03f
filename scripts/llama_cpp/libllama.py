"""The real llama.cpp from Python, to see what it makes of a GGUF of ours.

    with LlamaCpp(path) as model:
        ids = model.tokenize("def main(")
        logits = model.logits(ids)              float32 [T, V], of every position
        text = model.text(model.greedy(ids, 20))

Attention runs in float32 with float32 keys and values, so that what differs from our runtime is the quantisation of
activations and the order of float sums; `own_attention` leaves it as llama.cpp has it (float16, flash). The library is
found by `BITNET_TEST_LLAMA_CPP`; see `scripts/build_llama_cpp`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from scripts.llama_cpp.libllama_api import (
    FILE_TYPES,
    GGML_TYPES,
    NO_FLASH_ATTENTION,
    Batch,
    EvalCallback,
    ImportanceData,
    last_errors,
    libggml,
    libllama,
)


class LlamaCpp:
    """One GGUF in llama.cpp, on the CPU; ValueError with llama.cpp's own words where it refuses."""

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int = 512,
        num_threads: int = 1,
        own_attention: bool = False,
        on_node: Any = None,
    ) -> None:
        """`on_node` is an `EvalCallback`, or None: see `importance.py`."""
        self._library = libllama()
        self._model = self._context = None
        params = self._library.llama_model_default_params()
        params.check_tensors = True
        self._model = self._library.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {path.name}: {last_errors()}")
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocab_size: int = self._library.llama_vocab_n_tokens(self._vocabulary)
        self.context_tokens = context_tokens
        self._on_node = on_node or EvalCallback()  # kept, for the context calls it
        self._context = self._make_context(num_threads, own_attention)

    def _make_context(self, num_threads: int, own_attention: bool) -> int:
        params = self._library.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.context_tokens
        params.n_threads = params.n_threads_batch = num_threads
        params.cb_eval = ctypes.cast(self._on_node, ctypes.c_void_p)
        if not own_attention:
            params.type_k = params.type_v = GGML_TYPES["f32"]
            params.flash_attn_type = NO_FLASH_ATTENTION
        context = self._library.llama_init_from_model(self._model, params)
        if not context:
            raise ValueError(f"llama.cpp makes no context: {last_errors()}")
        return context

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory; the object cannot be used afterwards."""
        if self._context:
            self._library.llama_free(self._context)
        if self._model:
            self._library.llama_model_free(self._model)
        self._model = self._context = None

    @property
    def description(self) -> str:
        """llama.cpp's own words for what the file is, such as `llama ?B Q1_0`."""
        buffer = ctypes.create_string_buffer(256)
        self._library.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode()

    @property
    def chat_template(self) -> str | None:
        """The default chat template in the file."""
        template = self._library.llama_model_chat_template(self._model, None)
        return None if template is None else template.decode()

    def metadata(self, key: str) -> str | None:
        """Return a scalar metadata value as llama.cpp prints it, or None."""
        buffer = ctypes.create_string_buffer(1 << 16)
        length = self._library.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.value.decode()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Return the ids of `text`; `add_special` as the file says, `parse_special` reads <|names|> of tokens."""
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), ids, room, add_special, parse_special)
        assert count >= 0, "more tokens than bytes"
        return list(ids[:count])

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` as llama.cpp's programs print it, piece by piece, special tokens written out."""
        return b"".join(map(self._piece, ids)).decode(errors="replace")

    def _piece(self, token_id: int) -> bytes:
        buffer = ctypes.create_string_buffer(1 << 12)
        length = self._library.llama_token_to_piece(self._vocabulary, token_id, buffer, len(buffer), 0, True)
        assert length >= 0, "a token of more than 4 KiB"
        return buffer.raw[:length]

    def ends(self, token_id: int) -> bool:
        """Whether llama.cpp stops after this token."""
        return bool(self._library.llama_vocab_is_eog(self._vocabulary, token_id))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return float32 [T, V]: the logits after each of `ids`, read from the start in one pass."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        return self._decode(ids)

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return `num_tokens` most likely ids after `ids`, each fed back; an end of text does not stop it."""
        return list(islice(self.steps(ids), num_tokens))

    def steps(self, ids: Sequence[int]) -> Iterator[int]:
        """Yield the most likely id after `ids`, again and again, each fed back before the next is asked for."""
        step = self.logits(ids)
        while True:
            chosen = int(step[-1].argmax())
            yield chosen
            step = self._decode([chosen])

    def _decode(self, ids: Sequence[int]) -> np.ndarray:
        count = len(ids)
        tokens = (ctypes.c_int32 * count)(*ids)
        every = (ctypes.c_int8 * count)(*([1] * count))
        status = self._library.llama_decode(self._context, Batch(n_tokens=count, token=tokens, logits=every))
        if status != 0:
            raise ValueError(f"llama.cpp could not decode {count} tokens (status {status}): {last_errors()}")
        found = self._library.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (count, self.vocab_size)).copy()

    def set_adapter(self, path: Path | None, strength: float = 1.0) -> None:
        """Add the LoRA adapter in `path` at `strength`, as `--lora-scaled` does; None takes all adapters off."""
        adapters, strengths, count = (ctypes.c_void_p * 1)(), (ctypes.c_float * 1)(strength), 0
        if path is not None:
            adapters[0] = self._library.llama_adapter_lora_init(self._model, str(path).encode())
            count = 1
            if not adapters[0]:
                raise ValueError(f"llama.cpp cannot load the adapter {path.name}: {last_errors()}")
        status = self._library.llama_set_adapters_lora(self._context, adapters, count, strengths)
        assert status == 0, status


def quantize_file(
    source: Path,
    out: Path,
    file_type: str,
    *,
    pure: bool = False,
    allow_requantize: bool = False,
    importance: Mapping[str, np.ndarray] | None = None,
    num_threads: int = 1,
) -> None:
    """Do what `llama-quantize` does; the flags are its own. ValueError where llama.cpp refuses.

    importance: of a weight [N, K] by its name in the file, float32 [K], as `importance.py` collects it.
    """
    library = libllama()
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread = FILE_TYPES[file_type], num_threads
    params.pure, params.allow_requantize = pure, allow_requantize
    entries = _importance_entries(importance or {})
    if importance:
        params.imatrix = entries
    last_errors()
    if library.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) != 0:
        raise ValueError(f"llama.cpp cannot quantise {source.name} to {file_type}: {last_errors()}")


def _importance_entries(importance: Mapping[str, np.ndarray]) -> ctypes.Array[ImportanceData]:
    """Return llama.cpp's array of entries; it refers to the values, which must be float32 and live as long."""
    entries = (ImportanceData * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


def dequantize(ggml_type: str, data: np.ndarray, num_inputs: int) -> np.ndarray:
    """Decode rows of blocks uint8 [N, bytes] into float32 [N, num_inputs] by ggml's own code."""
    data = np.ascontiguousarray(data)
    values = np.empty((len(data), num_inputs), np.float32)
    traits = libggml().ggml_get_type_traits(GGML_TYPES[ggml_type]).contents
    assert data.shape[1] == num_inputs // traits.blck_size * traits.type_size, (data.shape, num_inputs)
    traits.to_float(data.ctypes.data, values.ctypes.data, values.size)
    return values


def quantize(ggml_type: str, values: np.ndarray) -> np.ndarray:
    """Encode float32 [N, K] into rows of blocks uint8 [N, bytes] by ggml's own code."""
    values = np.ascontiguousarray(values, np.float32)
    rows, inputs = values.shape
    traits = libggml().ggml_get_type_traits(GGML_TYPES[ggml_type]).contents
    data = np.empty((rows, inputs // traits.blck_size * traits.type_size), np.uint8)
    written = libggml().ggml_quantize_chunk(
        GGML_TYPES[ggml_type], values.ctypes.data, data.ctypes.data, 0, rows, inputs, None
    )
    assert written == data.nbytes, (written, data.nbytes)
    return data
