"""What `fwlab bench` shows while it measures: a bar over all measurements, and a line for each that is done."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """A context; `steps` is how many measurements there will be."""

    def __init__(self, steps: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=Console(), transient=True)
        self._task = self._bar.add_task("measuring", total=steps)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begins(self, what: str) -> None:
        """What is being measured or prepared now."""
        self._bar.update(self._task, description=what)

    def note(self, line: str) -> None:
        """Something that whoever reads the figures should know."""
        self._bar.console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)

    def done(self, line: str) -> None:
        """One measurement is over, and this is what it gave."""
        self.note(line)
        self._bar.advance(self._task)
