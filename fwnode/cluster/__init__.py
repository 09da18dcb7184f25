"""Who is active, and in load sharing who processes what, decided without touching anything.

`membership.Cluster` takes heartbeats, refusals, device reports and the time, and answers with the member's own state,
heartbeats to send and events. `decision_function.DecisionFunction` gives each connection key to one active member.
Times here are wire time (wall seconds). Nothing may hold a socket, a thread or a clock.
"""
