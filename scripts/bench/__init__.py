"""Speed and memory, measured beside named peers, kept as result files."""
