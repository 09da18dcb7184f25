"""A run from its first step to its document, whatever goes wrong on the way."""

from __future__ import annotations

import traceback
from typing import Any

from labs.exit_codes import ExitCode
from labs.procedure.document import OWN_ERROR
from labs.procedure.runner import Runner


async def play(runner: Runner) -> tuple[dict[str, Any], ExitCode]:
    """The document. A mistake of `fwlab` itself is shown, told in the document, and the exit code's."""
    try:
        return await runner.run(), ExitCode.HELD
    except Exception as error:
        traceback.print_exc()
        runner.problem = f"{OWN_ERROR}: {type(error).__name__}: {error}"
        return await runner.document(), ExitCode.INTERNAL
