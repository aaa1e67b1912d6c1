"""WHAT TO TRY NEXT: the study, the samplers, the search loop, the store and the Pareto front.

Third-party libraries: optuna, numpy and scipy.
"""
