"""WHAT TO TRY NEXT: the study, the sampler, the loop, the store, records and the front. optuna and
numpy.
"""
