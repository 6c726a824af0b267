"""What is measured. Each row runs in a process of its own, so that none warms up another."""
