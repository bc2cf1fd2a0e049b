"""`smtool race`: the same small transformer on the latents of several autoencoders, and a ranking no finer than the noise."""
