"""What the study learned: tables, figures and the page, from records alone.

pandas and plotly; never torch or optuna.
"""
