"""What tests need to make claims about real processes."""
