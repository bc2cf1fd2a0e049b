"""Batches through frozen networks, on one rank or many: the whole diffusion model, generation, work that ranks share."""
