"""A quarter of an hour on a GPU machine: one command that measures the most valuable things first.

    python -m benchmarks.gpu --minutes 12 --data cifar100.npz --out DIR

`stages.py` is the table of what is measured; `__main__.py` says how to ask for it.
"""
