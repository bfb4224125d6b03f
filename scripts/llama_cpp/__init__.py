"""The real llama.cpp beside ours: the same weights, tokens and logits."""
