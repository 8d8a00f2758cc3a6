"""What the clients do with tasks; `forebay.tasks` is what users import."""
