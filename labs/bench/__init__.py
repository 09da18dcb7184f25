"""What the lab's firewall costs, measured against its peers: each figure is a ratio of two things measured in turn, in
one run, on the same topology; where a peer is not there, the figure stands alone and says so. Benchmarks are not tests:
nothing passes or fails by time.
"""
