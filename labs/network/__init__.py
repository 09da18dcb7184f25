"""The ground that labs stand on: private namespaces, switches and links, members' processes, faults.

From the outside in: `supervisor` makes the namespaces and `discovery` finds them again; inside, `lab` builds a
`topology` through `namespaces`, and runs members; `doctor` says what a machine
lacks. It knows nothing of lab files, workloads and expectations: those are `labs.procedure`'s.
"""
