"""WHAT IS KEPT: the record of a candidate, and the paper's figures in a study.

No torch, no optuna.
"""
