"""Joins node reports with queue state into snapshots and Prometheus metrics."""
