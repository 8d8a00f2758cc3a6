"""Measurements of the mesh. They print and write what they saw and judge nothing."""
