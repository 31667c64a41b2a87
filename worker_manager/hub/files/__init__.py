"""What a job's files are called, what a job may ask of them, and which of it the hub answers for."""
