"""WHAT WE KNOW: all that follows from a study's records, computed once.

numpy and scipy; never torch, optuna, plotly or pandas.
"""
