"""Who is active, decided without touching anything.

`membership.Cluster` takes heartbeats, refusals, device reports and the time, and answers with the member's own state,
heartbeats to send and events. Times here are wire time (wall seconds). Nothing may hold a socket, a thread or a clock.
"""
