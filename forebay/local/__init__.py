"""The mesh on one machine: getting Triton, starting every process, saying what is missing."""
