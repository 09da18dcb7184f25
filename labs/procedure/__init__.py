"""A lab: the file that people write, its steps and faults, its expectations, and the runner that plays it.

It uses the network to act and the traffic to see what the users of the cluster saw. How a firewall decides is not
known here: members are asked through their control socket.
"""
