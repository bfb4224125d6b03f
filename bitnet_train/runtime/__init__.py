"""Using a packed model: load it, prove it, measure it, talk to it. Nothing here needs the training room."""
