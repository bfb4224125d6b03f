"""Modules and surgery: load a pretrained model, swap its linears for BitLinear, adapt, merge, and run it packed.

In the order they are used: `load`, `select`, `convert`, `bit_linear`, `bit_lora`, `merge`, `converted`,
`packed_linear`. This package imports nothing by itself, because transformers and peft take seconds.
"""
