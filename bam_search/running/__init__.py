"""Run a study: resolve a request, train what it needs, write its report.

Knows no command line; `run_study` is how Python asks.
"""
