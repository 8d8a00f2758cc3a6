"""TaskService: tasks in, and what has become of them out. All that is kept is in JetStream."""
