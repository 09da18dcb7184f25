"""`python -m fwnode.control` is `fwctl`."""

from fwnode.control.cli import main

main()
