"""fwnode: one member of the firewall cluster.

A member is one process. `fwnode.firewall` and `fwnode.cluster` decide and are pure: time and bytes come in as
arguments, verdicts and events come out as values. `fwnode.datapath`, `fwnode.links` and `fwnode.control` touch the
kernel. `fwnode.sync` and `fwnode.sharing` stand between them, `fwnode.node` wires them together. The package knows
`syncproto`; it knows nothing of labs.
"""
