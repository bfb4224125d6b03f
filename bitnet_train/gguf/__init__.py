"""The container of GGUF, as read: header, names of tensors by architecture, pre-tokenizers. No model is made here."""
