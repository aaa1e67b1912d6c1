"""HOW GOOD and HOW EXPENSIVE: cost, data, recipe, training, and `evaluate`, where a placement meets
them.
"""
