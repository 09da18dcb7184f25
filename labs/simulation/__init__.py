"""The simulated world: virtual time, wires, hosts, and machines that run the same member as the kernel's world does.

One heap of events, one random source, no thread and no clock of the machine: the same seed gives the same run. Nothing
here may decide what a firewall, a cluster or a procedure does; that is the same code in either world.
"""
