"""Models in C++: a packed folder read by memory map, prompts and new tokens without Python in the loop.

In the order they are used: `support` (does this folder fit?), `architecture` and `tensor_file` (what it is, read
strictly), `weights` (hand it over), `tokens` and `chat` (text to ids and back), `context` (what is taken), `written`
(ids to text, as it comes), `remembered` (the text whose keys are kept) and `prompt_cache` (the same in a file), `batch`
(several prompts in one step), `engine` (the C++ model behind a lock), `streaming`, `model` (the public class). They
need neither torch nor transformers, which alone would take more memory than the model.
"""
