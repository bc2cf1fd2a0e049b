"""The spectrum report: measures whether latents are diffusable, and states it in sentences, tables and figures."""
