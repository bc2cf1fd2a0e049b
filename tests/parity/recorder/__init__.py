"""Runs released trainers and samplers on the inputs of `given`, and writes their results.

Released code is imported from a checkout that the caller names; none of it is stored here. Each recording runs in a separate
process, because the released repositories use the same module names (`models`, `utils`, `loss`).
"""
