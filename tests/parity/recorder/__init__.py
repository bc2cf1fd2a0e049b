"""Runs released trainers and samplers on what `given` makes, and writes what they compute.

Released code is imported from a checkout that the caller names; nothing of it is stored here. Each system runs in a process of
its own, because their modules bear the same names (`models`, `utils`, `loss`).
"""
