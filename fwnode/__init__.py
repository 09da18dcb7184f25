"""fwnode: one member of the firewall cluster.

`fwnode.member` is a member, whole and pure: time and bytes come in as arguments, verdicts come out as values, effects
through `fwnode.edges`. It is made of `fwnode.firewall` and `fwnode.cluster`, which decide, and `fwnode.synchronising`.
`fwnode.node` runs one in a process: with `fwnode.datapath`, `fwnode.links` and `fwnode.control.server` it touches the
kernel. The package knows `syncproto`; it knows nothing of labs.
"""
