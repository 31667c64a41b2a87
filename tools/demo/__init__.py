"""`make demo`: the whole idea on this machine, with real jobs, judged at the end."""
