"""The demo: synthetic support tickets, and a run on them that needs nothing from the network."""
