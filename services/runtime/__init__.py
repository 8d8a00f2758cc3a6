"""What any process needs: configuration, clock, logs, traces, health, ports."""
