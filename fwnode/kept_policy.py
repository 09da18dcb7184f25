"""The rule base that was installed by hand, kept across restarts of the member; the gateway keeps its last one, too.

One file of JSON lines: where the rule base came from and when, its sections in pieces, and a last line that says that
the file is whole. It is written in steps, so that packets come between, and takes its place when it is complete. What
was configured at the install is remembered as a digest: when the configuration's own rule base has changed since, that
is the newer wish, and the kept one is forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any

from fwnode.configuration import MemberConfig
from fwnode.control.protocol import add_piece, pieces, remainder
from fwnode.files import FileError
from fwnode.loaded_policy import CONFIGURED, Loaded, installed_by_hand
from fwnode.policy_file import build_policy


class KeptPolicy:
    """The file of one member, at `path`. Raises `FileError` when the configuration's rule base cannot be read."""

    def __init__(self, path: Path, config: MemberConfig, directory: Path) -> None:
        self.path = path
        self._members = frozenset(config.members)
        self._configured, self._where = config.policy_document(directory)
        text = json.dumps(self._configured, sort_keys=True, default=str)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        self._numbers = count()

    def load(self) -> Loaded:
        """The kept rule base, or the configuration's. Raises `FileError` when that one is not in order either."""
        problem = ""
        try:
            kept = self._read()
            if kept is not None:
                head, document = kept
                source = installed_by_hand(head["file"], head["installed_at"])
                if head["configured"] == self._digest:
                    policy = build_policy(document, str(self.path), self._members)
                    return Loaded(policy, f"{source}, kept across the restart")
                self.path.unlink()
                problem = f"the rule base {source}, is forgotten: the configuration's own has changed since"
        except (OSError, OverflowError, ValueError, KeyError, TypeError, AttributeError) as error:
            first = str(error).partition("\n")[0]
            problem = f"the rule base that was installed by hand cannot be loaded any more ({self.path}: {first})"
        return Loaded(build_policy(self._configured, self._where, self._members), CONFIGURED, problem)

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 2 or lines[-1] != _END:
            raise FileError(["it is not whole"])
        head = json.loads(lines[0])
        document = head["policy"]
        for line in lines[1:-1]:
            add_piece(document, json.loads(line))
        return head, document

    def writing(self, policy: dict[str, Any], file: str, at: float) -> Generator[None, None, None]:
        """Keep this rule base, installed at the wall time `at`, in steps of some milliseconds. Raises `OSError`."""
        new = self.path.with_name(f"{self.path.name}.{next(self._numbers)}.new")
        head = {"file": file, "installed_at": at, "configured": self._digest, "policy": remainder(policy)}
        try:
            with new.open("w", encoding="utf-8") as lines:
                lines.write(json.dumps(head) + "\n")
                for piece in pieces(policy):
                    yield
                    lines.write(json.dumps(piece) + "\n")
                lines.write(_END + "\n")
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)


_END = json.dumps({"end": True})
