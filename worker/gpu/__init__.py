"""GPUs: which there are, whether they are well, and whether their memory is free for the next job."""
