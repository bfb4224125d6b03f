"""Training text, held-out text and choices from files as they are published."""
