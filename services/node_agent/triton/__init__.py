"""Triton as the agent knows it: a client, a process, and what it says of itself."""
