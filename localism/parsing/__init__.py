"""What a teacher wrote, read: lists, examples, JSON."""
