"""The autoscaler on a virtual clock: the same decisions, placement and journal, simulated load."""
