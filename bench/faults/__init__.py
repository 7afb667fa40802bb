"""Campaigns of faults against real runs of tiny models: one file each, all of them by `python bench/reliability.py`."""
