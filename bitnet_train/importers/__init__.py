"""The one door in: whatever names a model becomes a model with what was found said. One file a kind of source."""
