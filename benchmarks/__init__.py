"""Measurements, each with its peer in the same run; results under results/."""
