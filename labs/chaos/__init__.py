"""Chaos: labs made from a seed, which only the invariants judge, and the shrinking of one that fails.

`making` writes a lab, `hunting` runs it and says what it broke, `shrinking` makes it smaller, `cli` is `fwlab chaos`.
"""
