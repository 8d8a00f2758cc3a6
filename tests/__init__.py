"""Claims about Forebay, on real parts."""
