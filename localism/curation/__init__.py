"""What stage curate decides with: gates that look at one example, and a search for duplicates."""
