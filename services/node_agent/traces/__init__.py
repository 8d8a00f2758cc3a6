"""Spans of requests, tasks and starts, and Triton's own through the agent."""
