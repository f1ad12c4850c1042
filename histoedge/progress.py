"""Progress of long work: stages call one function, which shows bars in a terminal or writes lines to a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

QUIET_S = 30.0
SHORT_S = 1.0  # shorter work gets no line in a log
LONGEST_NAME = 36  # columns; leaves room for the numbers in a terminal of 80 columns
FINISHED = 8  # bars of finished work that remain; more would push the current bars off the screen


class Progress(Protocol):
    """Called as ``progress(what, done, total, note)``: ``done`` of ``total`` units of ``what``, and a free ``note``.

    With a ``total`` of 0, ``what`` is a message that is printed once.
    """

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Report that ``done`` of ``total`` units are done."""
        ...


def show_log() -> None:
    """Also print log lines on stderr, except those that progress shows already."""
    import logging  # a local import keeps ``import histoedge`` fast

    class OnStderr(logging.Handler):
        """Writes to the current ``sys.stderr``, which rich replaces while bars are shown."""

        def emit(self, record: logging.LogRecord) -> None:
            if not getattr(record, "shown", False):
                print(self.format(record), file=sys.stderr, flush=True)

    logging.getLogger("histoedge").addHandler(OnStderr())


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Report nothing."""


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """Yield a progress function that shows bars with the remaining time on stderr.

    If stderr is not a terminal, it prints lines instead: one when work ends, at most one every 30 s with the remaining
    time at the current rate, and one when work starts with a note.
    """
    from rich import progress as rich
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    class Note(rich.ProgressColumn):
        """The note, which is cut in a narrow terminal."""

        def render(self, task: rich.Task) -> Text:
            return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    def uncut() -> Column:
        return Column(no_wrap=True)

    console = Console(stderr=True)
    name = Column(no_wrap=True, max_width=LONGEST_NAME)
    columns = (
        rich.TextColumn("{task.description}", markup=False, table_column=name),
        rich.BarColumn(bar_width=24),
        rich.MofNCompleteColumn(table_column=uncut()),
        rich.TextColumn("left", table_column=uncut()),
        rich.TimeRemainingColumn(table_column=uncut()),
        Note(),
    )
    with rich.Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, rich.TaskID] = {}
        printed = called = time.monotonic()
        started: dict[str, float] = {}

        def show(what: str, done: int, total: int, note: str = "") -> None:
            nonlocal printed, called
            if total == 0:
                bars.print(what, markup=False, highlight=False) if console.is_terminal else print(what, file=sys.stderr)
                return
            if not console.is_terminal:
                now, before = time.monotonic(), called
                called = now
                starts = done == 0 and note and what not in started
                took = now - started.setdefault(what, before)
                if starts or (done == total and took > SHORT_S) or now - printed > QUIET_S:
                    printed = now
                    left = f", {took / done * (total - done):.0f} s left" if 0 < done < total else ""
                    print(f"{what}: {done}/{total}{left} {note}".rstrip(), file=sys.stderr, flush=True)
                return
            if what not in tasks:
                for task in [task for task in bars.tasks if task.finished][:-FINISHED]:
                    bars.remove_task(tasks.pop(task.description))
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)

        yield show
