"""Files to rows, for the command line."""
