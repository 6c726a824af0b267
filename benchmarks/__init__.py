"""What the daemon costs and how fast it is, measured side by side with what a user would write by hand."""
