"""WHAT may be built: sites, choices, placements, search spaces.

Names and numbers only: never torch.
"""
