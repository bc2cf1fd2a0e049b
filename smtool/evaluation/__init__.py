"""Scores of reconstructions and of samples: features, distances, references, passports."""
