"""Tables and pictures of README, docs and recipes, from result files."""
