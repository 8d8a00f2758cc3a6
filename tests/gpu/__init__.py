"""What is tested with a stand-in elsewhere, on real GPUs."""
