"""The deployment as an operator runs it: the real compose files on a real Docker daemon."""
