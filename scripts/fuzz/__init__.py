"""Thousands of bad inputs for everything that reads: models, GGUF files, configurations, data, checkpoints, words.

`targets.py` is the table; `python -m scripts.fuzz` runs it.
"""
