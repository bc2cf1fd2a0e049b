"""What a loss is: the autoencoder's task, and the diffusion transformer's."""
