"""What happens to a packet, decided without touching anything.

`firewall.Firewall.decide(data, hook, now)` is the whole pipeline; the other modules are its parts: `packet` reads
headers, `fragments` remembers datagrams in pieces, `icmp` says what errors may pass, `tcp_states` has the state table;
`connection` is one connection and `table` all of them (with `wheel` for their ends, `ended` for what is over, and
`packed` for copies that nobody has asked for); `telling` collects what peers are to hear of it, `audience` remembers
who did, `tellers` whose the copies are, `refreshing` looks for what peers do not know exactly. `clearing` ends
connections by order; `policy` is the rule base, `parameters` the kernel parameters.
`inspection` follows control connections (`lines` of their streams, and what `announcements` stand in them),
`announced` holds the data connections that are announced, and `data_connections` asks them when a packet is decided.
`sharing_key` is what load sharing decides by, `reject` makes the answer to a rejected packet,
`load` says when new connections are blocked, `holding` what becomes of packets that wait for an ACK, `verdict` has the
words for all of it.
Nothing here may hold a socket, a thread, randomness, the environment or a clock. `now` is lab time in seconds.
"""
