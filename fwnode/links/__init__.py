"""Edge to the wires between members: UDP 8116 (heartbeats, delta sync) and TCP 256 (full sync).

Thin: bytes and addresses only. What a message means is for `syncproto` and `fwnode.cluster`.
"""
