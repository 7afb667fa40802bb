"""The baselines a receipt compares with: the libraries people use today, each in its own process."""
