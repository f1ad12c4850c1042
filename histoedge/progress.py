"""Saying how far long work is: one callable that stages call and that a terminal, a log or a test can be."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

QUIET_S = 30.0
SHORT_S = 1.0  # work this short is not worth a line in a log
LONGEST_NAME = 36  # columns: on a terminal of 80, the numbers beside it stay whole
FINISHED = 8  # bars of finished work that stay: what goes on must be in sight however much went before


class Progress(Protocol):
    """Called as ``progress(what, done, total, note)``: ``done`` of ``total`` units of ``what``; ``note`` is free.

    With a ``total`` of 0 ``what`` is a line of its own, to be read once.
    """

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` are done."""
        ...


def show_log() -> None:
    """Also show on stderr what is logged of long work, but those lines that progress shows anyway."""
    import logging  # not above: importing histoedge stays light

    class OnStderr(logging.Handler):
        """Writes to what stderr is at that moment: bars take its place while they are shown."""

        def emit(self, record: logging.LogRecord) -> None:
            if not getattr(record, "shown", False):
                print(self.format(record), file=sys.stderr, flush=True)

    logging.getLogger("histoedge").addHandler(OnStderr())


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """Bars with the time left on stderr; where stderr is no terminal, a line at the end and at most one in 30 s.

    Such a line tells the time left at the rate so far. Work that is told as begun, with a note, has a line at once.
    """
    from rich import progress as rich
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    class Note(rich.ProgressColumn):
        """What gives way, with the bar, where the terminal is narrow."""

        def render(self, task: rich.Task) -> Text:
            return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    def whole() -> Column:
        return Column(no_wrap=True)

    console = Console(stderr=True)
    name = Column(no_wrap=True, max_width=LONGEST_NAME)
    columns = (
        rich.TextColumn("{task.description}", markup=False, table_column=name),
        rich.BarColumn(bar_width=24),
        rich.MofNCompleteColumn(table_column=whole()),
        rich.TextColumn("left", table_column=whole()),
        rich.TimeRemainingColumn(table_column=whole()),
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
                begun = done == 0 and note and what not in started
                took = now - started.setdefault(what, before)
                if begun or (done == total and took > SHORT_S) or now - printed > QUIET_S:
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
