"""Schedules: tasks by the clock, each slot once."""
