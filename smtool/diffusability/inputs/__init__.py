"""Inputs of the report: autoencoders, the images they are measured on, and the statistics that one pass accumulates."""
