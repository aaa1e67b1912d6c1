"""WHAT A PAPER SHOWS: the figure, the table, their caption and what to cite, from a page's records.

The numbers are those of the page: the overview of the same findings.
"""
