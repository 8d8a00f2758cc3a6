"""Calls back whoever asked to hear of the end of a task, while this autoscaler leads."""
