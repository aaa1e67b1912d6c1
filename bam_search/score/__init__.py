"""HOW GOOD and HOW EXPENSIVE a placement is.

Cost, data, recipe and training; `evaluate` brings them together for one placement.
"""
