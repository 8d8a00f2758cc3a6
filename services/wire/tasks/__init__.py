"""Tasks as they are kept in JetStream, for all who submit, run, end or look at them."""
