"""Claims about scaling over time, on a virtual clock."""
