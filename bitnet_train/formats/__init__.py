"""Bytes: integer codes to packed tensors and back. No files, no modules."""
