"""Unary calls to one server."""
