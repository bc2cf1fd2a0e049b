"""The spectrum report: whether latents are diffusable, measured, judged in sentences and drawn."""
