"""The part of llama.cpp's C interface that the proofs use, declared for ctypes.

The structures follow `include/llama.h` of llama.cpp 0.5.0-dev, the one in the sdist of llama-cpp-python 0.3.36, field
by field: they are passed by value, so a library of another version would read them wrongly and is refused.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path

VERSION = "0.5.0-dev"
VARIABLE = "BITNET_TEST_LLAMA_CPP"

GGML_TYPES = {
    **{"f32": 0, "f16": 1, "bf16": 30, "q4_0": 2, "q5_0": 6, "q8_0": 8},
    **{"tq1_0": 34, "tq2_0": 35, "q1_0": 41, "q2_0": 42},
}
FILE_TYPES = {
    **{"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q4_k_m": 15, "q4_0": 2, "q3_k_m": 12},
    **{"q2_k": 10, "iq4_xs": 30, "iq3_xxs": 23, "iq2_m": 29, "iq2_s": 28, "iq2_xs": 20, "iq2_xxs": 19},
    **{"iq1_m": 31, "iq1_s": 24, "tq1_0": 36, "tq2_0": 37, "q1_0": 40, "q2_0": 41},
}
"""Of `llama_ftype`, in lower case and without `MOSTLY_`."""

NO_FLASH_ATTENTION = 0

LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
ToFloat = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)


class ModelParams(Structure):
    """`llama_model_params`."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("modes", c_int32 * 3),  # split, load, lazy
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(Structure):
    """`llama_context_params`."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope", c_float * 6),  # freq base and scale, four of YaRN
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("flags", c_bool * 6),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(Structure):
    """`llama_batch`."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", POINTER(ctypes.c_int8)),
    )


class ImportanceData(Structure):
    """`llama_model_imatrix_data`: an entry of an array that one without a name ends."""

    _fields_ = (("name", c_char_p), ("data", POINTER(c_float)), ("size", c_size_t))


class QuantizeParams(Structure):
    """`llama_model_quantize_params`."""

    _fields_ = (
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("output_tensor_type", c_int32),
        ("token_embedding_type", c_int32),
        ("allow_requantize", c_bool),
        ("quantize_output_tensor", c_bool),
        ("only_copy", c_bool),
        ("pure", c_bool),
        ("keep_split", c_bool),
        ("dry_run", c_bool),
        ("imatrix", POINTER(ImportanceData)),
        ("kv_overrides", c_void_p),
        ("tt_overrides", c_void_p),
        ("prune_layers", c_void_p),
        ("max_buf_size", c_size_t),
    )


class TypeTraits(Structure):
    """`ggml_type_traits`."""

    _fields_ = (
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", ToFloat),
        ("from_float_ref", c_void_p),
    )


class Tensor(Structure):
    """`ggml_tensor`, a node of the graph."""


Tensor._fields_ = (
    ("type", c_int32),
    ("buffer", c_void_p),
    ("ne", c_int64 * 4),  # innermost first
    ("nb", c_size_t * 4),  # bytes from one to the next
    ("op", c_int32),
    ("op_params", c_int32 * 16),
    ("flags", c_int32),
    ("src", POINTER(Tensor) * 10),
    ("view_src", POINTER(Tensor)),
    ("view_offs", c_size_t),
    ("data", c_void_p),
    ("name", c_char * 64),
    ("extra", c_void_p),
    ("padding", c_char * 8),
)

EvalCallback = ctypes.CFUNCTYPE(c_bool, POINTER(Tensor), c_bool, c_void_p)
"""`ggml_backend_sched_eval_callback`: asked of each node whether to stop after it, then called with its data."""


_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (LogCallback, c_void_p)),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_quantize_default_params": (QuantizeParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_desc": (c_int32, (c_void_p, c_char_p, c_size_t)),
    "llama_model_chat_template": (c_char_p, (c_void_p, c_char_p)),
    "llama_model_meta_val_str": (c_int32, (c_void_p, c_char_p, c_char_p, c_size_t)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)),
    "llama_token_to_piece": (c_int32, (c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_logits": (POINTER(c_float), (c_void_p,)),
    "llama_adapter_lora_init": (c_void_p, (c_void_p, c_char_p)),
    "llama_set_adapters_lora": (c_int32, (c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float))),
    "llama_model_quantize": (c_uint32, (c_char_p, c_char_p, POINTER(QuantizeParams))),
}


def library_file() -> Path | None:
    """Return the libllama that the environment variable names (the file or its folder), or None where it is unset."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named)
    found = [path] if path.is_file() else [path / name for name in ("libllama.so", "libllama.dylib")]
    existing = [file for file in found if file.is_file()]
    if not existing:
        raise FileNotFoundError(f"{VARIABLE}={named} holds no libllama. Set it to what scripts/build_llama_cpp prints.")
    return existing[0]


@cache
def libllama() -> ctypes.CDLL:
    """Load libllama, declare its functions, and silence its log; RuntimeError for another version."""
    file = library_file()
    if file is None:
        raise RuntimeError(f"{VARIABLE} is not set. Set it to what scripts/build_llama_cpp prints.")
    library = ctypes.CDLL(str(file))
    library.llama_version.restype = c_char_p
    version = library.llama_version().decode()
    if version != VERSION:
        raise RuntimeError(f"{file} is llama.cpp {version}; these declarations are of {VERSION}.")
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_LOG, None)
    library.llama_backend_init()
    return library


@cache
def libggml() -> ctypes.CDLL:
    """Load ggml's own quantisers, which lie beside libllama."""
    file = library_file()
    assert file is not None
    library = ctypes.CDLL(str(file.with_name(file.name.replace("llama", "ggml-base"))))
    library.ggml_get_type_traits.restype = POINTER(TypeTraits)
    library.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    library.ggml_op_desc.restype, library.ggml_op_desc.argtypes = c_char_p, (POINTER(Tensor),)
    library.ggml_quantize_chunk.restype = c_size_t
    library.ggml_quantize_chunk.argtypes = (ctypes.c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)
    return library


def last_errors() -> str:
    """Return what the library logged as errors since the last call, and forget it."""
    text = " ".join(_errors)
    _errors.clear()
    return text


_errors: list[str] = []
_ERROR = 4  # GGML_LOG_LEVEL_ERROR


def _log(level: int, text: bytes, _: object) -> None:
    if level == _ERROR:
        _errors.append(text.decode(errors="replace").strip())


_LOG = LogCallback(_log)
