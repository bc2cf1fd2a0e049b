"""Training tasks, which define losses: that of the autoencoder and that of the diffusion transformer."""
