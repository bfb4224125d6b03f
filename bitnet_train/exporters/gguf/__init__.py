"""One file for stock llama.cpp, `model.gguf`: the codes and scales that were trained, in blocks that it computes with.

    block_type      which of ggml's 1-bit block types the packed layers of each scheme fit
    tensors         every tensor of the file: name, shape, type, and the bytes when its turn comes
    metadata        what the architecture is told: sizes, norms, rotary positions (`rope`)
    limits          what llama.cpp takes for granted of an architecture, and this model must therefore be
    tokenizer       tokens, merges or scores, the name of the pre-tokenizer, chat template
    container       header, metadata and tensors on disk, one tensor at a time
    read_back       the weights of a finished file, decoded from its bytes
    card            README.md

Every 1-bit weight and every int8 table in the file is ours bit for bit. llama.cpp multiplies them by activations that
it rounds to 8 bits in blocks of 32, where we round a token at a time, so logits differ by that rounding.
"""

from __future__ import annotations

from bitnet_train.exporters.gguf.container import MODEL_NAME
from bitnet_train.exporters.gguf.export import check, write
from bitnet_train.exporters.gguf.read_back import expected, read_back

__all__ = ["MODEL_NAME", "check", "expected", "read_back", "write"]
