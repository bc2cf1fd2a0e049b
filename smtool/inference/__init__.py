"""Inference with frozen networks, on one rank or many: encoding, reconstruction, generation, and passes shared among ranks."""
