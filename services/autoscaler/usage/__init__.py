"""What replicas were held for, and for how long: counted by the autoscaler that leads."""
