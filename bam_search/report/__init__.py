"""WHAT WE LEARNED: tables, figures and the page, from records alone. pandas and plotly; never torch
or optuna.
"""
