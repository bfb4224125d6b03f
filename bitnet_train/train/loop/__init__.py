"""The training loop: the Lightning module, the optimiser, schedules, what survives a kill."""
