"""Models out of GGUF files: configuration, rotary positions, tokenizer and weights, float or 1-bit."""
