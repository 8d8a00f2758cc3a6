"""From load to a number of replicas. Pure, all of it: the same objects run live and simulated."""
