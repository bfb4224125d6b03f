"""Lightning: the module that trains, the data module, what survives a kill, and where figures go."""
