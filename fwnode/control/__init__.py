"""Edge to the operator: a unix socket that takes JSON requests (`fwnode.control.protocol`), and `fwctl`, which asks and
prints. Who asks, however much and however many they are, gets what time packets leave (`fwnode.control.server`).
"""
