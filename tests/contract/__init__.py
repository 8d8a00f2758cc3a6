"""What must stay true of the tree itself: rules, generated files, documents."""
