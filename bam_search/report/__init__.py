"""WHAT IS SHOWN: tables, figures and the page, from a study's findings.

pandas, plotly and jinja2; never torch or optuna.
"""
