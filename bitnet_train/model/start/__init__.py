"""Where training starts from: error feedback, least squares, equalisation, block by block."""
