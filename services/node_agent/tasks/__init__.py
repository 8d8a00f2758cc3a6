"""Tasks in a replica: taken when no request waits, run, tried again, ended."""
