"""Scores of reconstructions and generations: pure maths on tensors."""
