"""Edge to the kernel's packet path: the queue, the rules that divert packets into it, the virtual addresses.

Thin on purpose: nothing here decides about a packet. What it needs of netlink, ARP and iptables it does, and reads
back what it did.
"""
