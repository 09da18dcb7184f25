"""Plain data as YAML that this program reads again: its reader takes no aliases, so what two places share is written
out in both."""

from __future__ import annotations

from typing import Any

import yaml

WIDTH = 110


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_text(data: dict[str, Any], *, compact: bool = False) -> str:
    """`compact`: what is innermost on one line, in braces and brackets."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None if compact else False,
                     allow_unicode=True, width=WIDTH)
