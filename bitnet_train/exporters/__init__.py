"""Files for others, each written from the packed folder: GGUF, transformers, dense weights, C, adapters."""
