"""Measuring a machine: short steps of small models by the product's own loop, and the rates that follow from them."""
