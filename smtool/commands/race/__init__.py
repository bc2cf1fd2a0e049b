"""`smtool race`: train the same small transformer on the latents of several autoencoders, and rank them.

Differences within seed noise count as ties.
"""
