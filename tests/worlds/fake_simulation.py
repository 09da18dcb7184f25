"""A simulation that simulates nothing: documents of the real shape, whose figures come from the seed alone.

Workers import it by name. Some seeds end the process that plays them.
"""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from labs.procedure.document import MemberAccount, build
from labs.procedure.expectations import judge
from labs.procedure.model import LabFile
from labs.traffic.fates import Fate, Tally

FUNCTION = "fake_simulation:simulate"
SLOW = "fake_simulation:slow"
SLOW_AFTER = 4
KILLS_ALWAYS, KILLS_ONCE, RAISES, BREAKS_OFF = 13, 17, 19, 23
MARK = "FAKE_SIMULATION_FOLDER"
"""In the environment: where it is noted that a process was ended once."""


def simulate(file: LabFile, seed: int) -> dict[str, Any]:
    if seed == KILLS_ALWAYS or (seed == KILLS_ONCE and _first_time()):
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == RAISES:
        raise RuntimeError("a slip of the program")
    return document(file, seed)


def slow(file: LabFile, seed: int) -> dict[str, Any]:
    """The first seeds at once, the others never; it is noted who plays them."""
    if seed > SLOW_AFTER:
        fresh = Path(os.environ[MARK]) / "fresh"
        fresh.write_text(str(os.getpid()))
        fresh.rename(fresh.with_name("sleeping"))
        time.sleep(600)
    return document(file, seed)


def document(file: LabFile, seed: int) -> dict[str, Any]:
    """The newer fw2 is, the more is lost; seed 3 loses most."""
    chance = random.Random(f"{seed} {file.members['fw2'].release}")
    lost = 3 if seed == 3 else min(2, int(chance.expovariate(2)))
    lost *= 1 + (file.members["fw2"].release != "R77.30")
    tallies = {}
    for name, workload in file.workloads.items():
        tally = Tally(sessions=workload.count or 0, longest_silence_s=round(chance.uniform(0.2, 3), 3))
        gone = min(lost, tally.sessions)
        tally.fates.update({Fate.HUNG: gone, Fate.SURVIVED: tally.sessions - gone})
        tallies[name] = (str(workload.kind), tally)
    problem = ("steps[6].until: members.fw2.connections is 299 and did not become is 300" if seed == BREAKS_OFF else "")

    def told(judgements: Any = ()) -> dict[str, Any]:
        return build(
            lab=file.name, title=file.header.title, claims=[], rate=1.0, seconds=40.0, lab_seconds=40.0,
            members={name: MemberAccount(member.release) for name, member in file.members.items()},
            workloads=tallies, takeovers=[], judgements=judgements, timeline=[], problem=problem,
        )  # fmt: skip

    return told([judge(expectation, told(), "the end") for expectation in file.expect])


def _first_time() -> bool:
    try:
        (Path(os.environ[MARK]) / "killed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
