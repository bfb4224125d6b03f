"""llama.cpp's types and our packed folders on the same tokens: what each takes, and what it keeps of the original."""
