"""What the lab's firewall costs, measured against its peers: each figure is a ratio of two things measured in turn, in
one run, on the same topology; where a peer is not there, the figure stands alone and says so. Benchmarks are not tests:
nothing passes or fails by time.

`cli` starts `measuring`, which goes through the groups: `forward`, `connections` and `growth`, `sync` and `wire`,
`failover`, `memory`, `simulation`. `pairs` makes the labs that are compared; `ways`, `accept_all`, `conntrackd` and
`keepalived` are the peers in them; `generator` (of `udp_frames`) and `round_trips` are the load. `figures` is the
arithmetic; `guide.md` says what each figure means.
"""
