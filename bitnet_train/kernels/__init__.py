"""Integer matrix products of packed codes: the exact reference, the CPU kernels, the torch op."""
