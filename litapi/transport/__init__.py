"""What carries jobs from HTTP processes to workers and replies back: both ends of it."""
