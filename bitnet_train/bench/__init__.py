"""Tokens per second and memory of packed models, float models and llama.cpp, each in a process of its own."""
