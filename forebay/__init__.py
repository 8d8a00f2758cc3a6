"""Forebay: a self-hosted gRPC mesh that turns machines with GPUs into serverless inference."""
