"""Training sets beside the accepted examples, for ablations; all end in tables that train reads."""
