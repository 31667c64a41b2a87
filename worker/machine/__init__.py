"""Several workers on one machine: what each may offer, so that together they never hold more than there is.

`folder` is what they all see, `shares` what it means, `seat` a worker's place in it (the agent's part), `neighbours`
takes and gives back (the keeper's), and `sharing` is the room of a keeper that has neighbours. Nothing of it is loaded
without `--share`.
"""
