"""Progress as the user sees it, in a terminal and in a log."""

import os
import re
import select
import subprocess
import sys

from histoedge.progress import FINISHED

MANY = """
from histoedge.progress import on_terminal
with on_terminal() as show:
    show("all", 0, 31)
    for number in range(30):
        show(f"work-{number}", 0, 2)
        show(f"work-{number}", 2, 2)
        show("all", number + 1, 31)
    show("work-30", 1, 2, "a note")
    show("work-0", 1, 2)
"""


def on_a_terminal(script: str, *, columns: int = 100) -> str:
    """Return what the script writes to stderr in a terminal."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
    running = subprocess.Popen([sys.executable, "-c", script], stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            written += os.read(ours, 65536)
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(ours)
    assert running.wait() == 0
    return written.decode()


def test_current_bars_stay_visible_when_much_work_is_finished() -> None:
    last = on_a_terminal(MANY).rpartition("\x1b[2K")[2]
    shown = re.findall(r"^\S*?(all|work-\d+) .*?(\d+/\d+)", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last), re.MULTILINE)
    assert ("all", "30/31") in shown
    assert ("work-30", "1/2") in shown
    assert ("work-0", "1/2") in shown  # its bar was removed, and shown again
    assert len(shown) == 3 + FINISHED
    assert "a note" in last


def test_a_narrow_terminal_shows_the_numbers_and_the_time_left() -> None:
    name, longer = "bench, test patches, group 1 of 2", "verify a-very-long-name-of-a-model.onnx, runtimes"
    script = f"""
import time
from histoedge.progress import on_terminal
with on_terminal() as show:
    for name in ({name!r}, {longer!r}):
        for done in range(1, 4):
            show(name, 12000 + done, 32768, "models/[dim]int8.tflite @ litert")
            time.sleep(0.2)
"""
    last = on_a_terminal(script, columns=80).rpartition("\x1b[2K")[2]
    first, second = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).strip().splitlines()
    numbers = r" \S+ +12003/32768 left \d:\d\d:\d\d \S+…"
    assert re.match(re.escape(name) + r" +" + numbers, first.strip()), first
    assert re.match(re.escape(longer[:35]) + "…" + numbers, second.strip()), second


def test_a_log_has_lines_for_long_work_only() -> None:
    script = """
import time
from histoedge import progress
progress.QUIET_S = 0.4
with progress.on_terminal() as show:
    show("short", 1, 1)
    show("long", 0, 4)
    for done in range(1, 5):
        time.sleep(0.3)
        show("long", done, 4, "a note")
"""
    log = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr
    assert re.fullmatch(r"(long: [23]/4, \d s left a note\n){1,2}long: 4/4 a note\n", log), log
