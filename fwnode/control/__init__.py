"""Edge to the operator: a unix socket that takes JSON requests (`fwnode.control.protocol`), and `fwctl`, which asks and
prints. However many callers there are, and however much they ask, they are served only in the time that packets leave
(`fwnode.control.server`).
"""
