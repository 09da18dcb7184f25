"""A member on a clock of its own, for tests: `FOLDER --config FILE`.

FOLDER/NAME holds the seconds by which the member's wall clock is off (`stepped_clock.c`, compiled there), at any time;
FOLDER/NAME.zero, if it is there, the monotonic time at which its lab time began, instead of the lab's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    folder, config = Path(sys.argv[1]), Path(sys.argv[3])
    zero = folder / f"{config.stem}.zero"
    if zero.exists():
        settings = json.loads(config.read_text())
        settings["clock"]["epoch"] = float(zero.read_text())
        config.write_text(json.dumps(settings))
    clock = {"STEP_FILE": str(folder / config.stem), "LD_PRELOAD": str(folder / "stepped_clock.so")}
    line = [sys.executable, "-P", "-m", "fwnode.node", *sys.argv[2:]]
    os.execve(sys.executable, line, {**os.environ, **clock})
