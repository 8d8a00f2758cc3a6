"""Joins what nodes report with what JetStream knows, for the autoscaler and for people."""
