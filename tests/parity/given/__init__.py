"""What both sides of a comparison are given: weights, batches and noise by rule, and how results are summed up and compared.

Nothing here imports smtool or released code.
"""
