"""The Llama family in C++: a packed folder read by memory map, prompts and new tokens without Python in the loop.

In the order they are used: `support` (does this folder fit?), `architecture` and `tensor_file` (what it is, read
strictly), `weights` (hand it over), `tokens` and `chat` (text to ids and back), `written` (ids to text, as it comes),
`prompt_cache`, `model` (the public class), `check` (a level of `validate`). All but `check` need neither torch nor
transformers, which alone would take more memory than the model.
"""
