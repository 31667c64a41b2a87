"""How a job is kept apart from others: `process` (a session, a directory and an environment of its own), `sandbox`
(bubblewrap), `docker`, `podman`, `apptainer`; and a user of its own where the agent is root.

`sandbox`, `containers`, `apptainer` build the command lines, purely, and try once whether they work here; `users` knows
which user an owner's jobs run as; `found` is what the agent learns at its start; `isolator` is what the keeper calls. A
plain job never comes here.
"""
