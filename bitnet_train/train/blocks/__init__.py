"""Blocks trained one by one against the full-precision model, in memory or from files."""
