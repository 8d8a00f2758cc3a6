"""What crosses a process: subjects, streams, outcomes, names, limits, connections."""
