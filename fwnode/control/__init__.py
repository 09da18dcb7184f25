"""Edge to the operator: a unix socket that takes one JSON request a line, and `fwctl`, which asks and prints.

Request: `{"command": "stat", "arguments": {}}`. Answer: `{"ok": true, "result": …}` or `{"ok": false, "error": "…"}`.
A following command answers once, then sends lines `{"event": …}` until the caller goes.
"""
