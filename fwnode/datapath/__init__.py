"""Edge to the kernel's packet path: the queues, the rules that divert packets into them, the virtual addresses, and
what load sharing needs.

Thin on purpose: nothing here decides about a packet. What it needs of netlink, ARP and iptables it does, and reads
back what it did.
"""
