"""Modules and surgery: load a pretrained model, swap its layers for 1-bit ones, adapt, merge, and run it packed.

In the order they are used: `load` (with `import_gguf` and `import_hf_bitnet` for models that are 1-bit already),
`select`, `convert`, `bit_layer` (with `bit_linear` and `bit_embedding`), `bit_lora`, `merge`, `converted`,
`packed_linear` and `packed_embedding`. This package imports nothing by itself, because transformers and peft take
seconds.
"""
