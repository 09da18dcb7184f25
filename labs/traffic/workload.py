"""What a lab file may say about a workload, and what the processes are told. Durations are lab time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from labs.traffic.durations import Duration, Spread

SESSIONS_MAX = 14_000  # one client address has some 28,000 ports towards a server port; all may connect anew once
OPEN_RATE_MAX = 5_000.0


class _Workload(BaseModel):
    model_config = ConfigDict(extra="forbid")

    port: int = Field(ge=1, le=65535)
    family: Literal["ipv4", "ipv6"] = "ipv4"
    patience: Duration = 60.0
    """How long the application waits for an answer, or for the connection to open, before it gives up."""
    says: str = ""
    """What the application is, in the words of the one who runs it."""


class Sessions(_Workload):
    """Long-lived sessions of numbered questions and answers."""

    kind: Literal["sessions"]
    count: int = Field(ge=1, le=SESSIONS_MAX)
    think: Spread = (2.0, 20.0)
    """Silence between an answer and the next question; may be shorter than a second of wall time."""
    speaks_first: Literal["client", "server"] = "client"
    """Who asks once the session is open. The opening exchange is always the client's, as a login is."""
    idle: bool = False
    """Says nothing after the opening exchange until it is told to `speak`, or until the end."""
    open_rate: float = Field(default=500.0, gt=0, le=OPEN_RATE_MAX)
    """Connections opened a second of wall time."""


class Short(_Workload):
    """New connections all the time: open, one exchange, (stay a while, one more exchange,) close."""

    kind: Literal["short"]
    rate: float = Field(default=10.0, gt=0, le=OPEN_RATE_MAX)
    """New connections a second of *wall* time: it loads the machine, not the story."""
    hold: Spread = (0.0, 0.0)
    """How long a connection stays open before its second exchange; nothing: it closes after the first."""


Workload = Annotated[Sessions | Short, Field(discriminator="kind")]


def orders(name: str, workload: Sessions | Short, *, address: str, rate: float, epoch: float) -> dict[str, Any]:
    """The orders for the two processes of a workload, as JSON: durations in seconds of lab time."""
    return {**workload.model_dump(), "name": name, "address": address, "clock": {"rate": rate, "epoch": epoch}}
