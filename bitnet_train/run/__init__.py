"""From a configuration to objects: the run directory, what is settled once and held to, and what stages share."""
