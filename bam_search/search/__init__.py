"""WHAT TO TRY NEXT: the study, the samplers, the search loop, the finalists and the store.

Third-party libraries: optuna and numpy.
"""
