"""FOR WHAT a model is trained: data, batches, loss and metric, behind one protocol, `Task`.

Knows no placement, and nothing of how a training or a search goes on.
"""
