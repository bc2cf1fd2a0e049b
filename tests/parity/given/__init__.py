"""The common inputs of both sides (weights, batches and noise, generated from names), and the comparison of results.

Nothing here imports smtool or released code.
"""
