"""HOW a model is built: attention modules, backbones, sites, attaching.

It knows torch, and nothing of training or search.
"""
