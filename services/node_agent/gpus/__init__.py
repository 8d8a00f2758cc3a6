"""The node's GPUs: what NVML says of them, which of them work, and who uses their memory."""
