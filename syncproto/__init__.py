"""The sync protocol of a firewall cluster, alone: usable without the firewall.

Members of a cluster keep their connection tables alike. A member that joins takes the whole table once (full sync, a
TCP stream); from then on only changes travel (delta sync, numbered datagrams). What two members may exchange at all
is decided by their software releases.

Way in, in reading order:

- `limits`    every cap and default, with its unit and where the number comes from
- `errors`    the one exception, and the reasons for which anything is refused
- `release`   software releases and the gate: what two of them may exchange, and why not (`releases.yaml`)
- `record`    a connection as it travels: the one list of its fields, and the updates that carry it
- `layout`    three schemas that really differ, and the functions that write and read them, made from that list
- `columns`   many connections field by field, as full sync carries them
- `message`   the kinds of message and their fields, as a table
- `codec`     bytes <-> message; only `SyncError` escapes on bad bytes
- `delta`     the numbered stream of updates: sending queue, receiving queue, retransmission, reject
- `full`      the snapshot: source and sink
- `pacing`    how fast a full sync goes while packets are forwarded
- `heal`      when to take a peer's table anew because updates were lost
- `session`   one peer: (state x message kind) -> handler, one table that is enforced
- `events`    what the protocol tells its owner, and the figures it counts
- `engine`    `SyncEngine`, the object that a member holds

Everything here is pure: no sockets, clock, randomness or threads. `now` (seconds, float, wire time) comes in as an
argument, bytes come in as arguments, and what should happen comes out as values.
"""
