"""WHAT IS KEPT: the record of a candidate.

No third-party libraries.
"""
