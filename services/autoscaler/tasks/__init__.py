"""Sees to it that no task is lost or stuck, while this autoscaler leads."""
