"""HOW it is built: attention modules, backbones, sites, attaching. torch, and nothing of training
or search.
"""
