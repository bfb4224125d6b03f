"""Which layers suffer most from 1-bit weights, measured without training.

parts       families of layers, blocks, single layers
in_place    float weights exchanged for quantised ones in the model itself, and put back
reference   what the float model predicts on a few rows; KL divergence and agreement with it
scan        every part alone quantised, alone in ternary, alone left float
suggest     where a few megabytes more help most, as `weight.overrides`
tables      the same for a terminal
"""
