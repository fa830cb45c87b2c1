"""Progress in files and pipes: lines with rate and time left."""

import io
import logging

from ramstrans import console
from ramstrans.console import progress_lines, progress_of_many


def test_lines_have_rate_and_time_left_and_do_not_come_too_often(caplog):
    caplog.set_level(logging.INFO, "ramstrans")
    now = [100.0]
    update = progress_lines(lambda: now[0])
    update(500, 2000, "predicting")  # the first 500 were there before
    for done, seconds in ((600, 10.0), (800, 30.0), (900, 45.0), (1100, 60.0)):
        now[0] = 100.0 + seconds
        update(done, 2000, "predicting")
    assert caplog.messages == [
        "predicting: 800 of 2000, 10.0/s, 2 min 0 s left",  # 300 in 30 s; 1200 to go
        "predicting: 1100 of 2000, 10.0/s, 1 min 30 s left",
    ]


def test_without_a_total_there_is_no_time_left(caplog):
    caplog.set_level(logging.INFO, "ramstrans")
    now = [0.0]
    update = progress_lines(lambda: now[0])
    update(0, 0, "predicting")
    now[0] = 40.0
    update(100, 0, "predicting")
    assert caplog.messages == ["predicting: 100, 2.5/s"]


def test_a_bar_in_a_terminal(monkeypatch):
    from rich.console import Console

    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(console, "standard_error", lambda: terminal)
    with progress_of_many() as progress:
        progress(3, 7, "predicting")
        progress(4, 0, "counting")
    assert "3/7" in terminal.file.getvalue()
    assert "4/?" in terminal.file.getvalue()
