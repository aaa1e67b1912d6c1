"""HOW GOOD and HOW DEAR: cost, data, recipe, training, and `evaluate`, where a placement meets them."""
