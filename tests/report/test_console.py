import io

import pytest
from rich.table import Table

from smtool.report.console import Console, Speed, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def ordinary_environment(monkeypatch):
    for name in ("RANK", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")


def test_a_training_line_in_a_file_is_plain_and_complete(tmp_path):
    out = io.StringIO()
    console = Console(file=out, seconds_between_lines=0)
    with console.training(5000, first_step=100) as line:
        line.update(120, {"l1": 0.03216, "kl": 12345.0}, 384.2, 200)
    text = out.getvalue().splitlines()[0]
    for part in ("step 120/5,000", "it/s", "384 images/s", "ETA", "B  ", "next checkpoint 200", "l1 0.0322", "kl 12,345"):
        assert part in text
    assert "\x1b" not in out.getvalue()


def test_plain_lines_are_printed_at_intervals_and_the_last_state_always():
    out = io.StringIO()
    console = Console(file=out, seconds_between_lines=3600)
    with console.training(10) as line:
        for step in range(1, 11):
            line.update(step)
    steps = [text.split("  ")[0] for text in out.getvalue().splitlines()]
    assert steps == ["step 1/10", "step 10/10"]


def test_autoencoder_updates_are_shown_if_they_are_fewer_than_steps():
    out = io.StringIO()
    with Console(file=out).training(10) as line:
        line.update(8, updates=6)
    assert out.getvalue().count("step 8/10 (6 autoencoder updates)") == 1


def test_a_terminal_gets_a_live_line_and_keeps_text_printed_meanwhile(tmp_path):
    out = Terminal()
    console = Console(file=out)
    assert console.is_live
    with console.training(10) as line:
        line.update(3, {"l1": 0.5})
        console.print("saved")
    assert "saved" in out.getvalue()
    assert "\x1b[" in out.getvalue()      # cursor movements


def test_a_progress_may_run_inside_a_training_line():
    out = Terminal()
    with (console := Console(file=out)).training(10) as line:
        line.update(5)
        with console.progress("validation") as report:
            report(2, 4)
        line.update(6)
    lines = out.getvalue().split("\n")
    assert any("validation  2/4 images" in line for line in lines)
    assert "step 6/10" in lines[-2]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not Console(file=Terminal()).is_live


def test_no_color_leaves_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    table = Table("metric", style="red")
    table.add_row("psnr")
    Console(file=out).print(table)
    assert "psnr" in out.getvalue()
    assert "\x1b[31m" not in out.getvalue()


def test_other_ranks_are_silent_and_write_no_log(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    out = io.StringIO()
    console = Console(tmp_path / "log.txt", file=out)
    console.log("hello")
    with console.training(10) as line:
        line.update(1)
    assert out.getvalue() == ""
    assert not (tmp_path / "log.txt").exists()


def test_logged_lines_go_to_the_screen_and_to_a_log_file_set_later(tmp_path):
    out = io.StringIO()
    console = Console(file=out)
    console.log("before")
    console.log_file = tmp_path / "run" / "log.txt"
    console.log("after [data]")
    assert out.getvalue() == "before\nafter [data]\n"
    assert console.log_file.read_text().endswith("  after [data]\n")
    assert "before" not in console.log_file.read_text()


def test_quiet_silences_the_screen_and_not_the_log(tmp_path):
    out = io.StringIO()
    console = Console(tmp_path / "log.txt", quiet=True, file=out)
    console.log("kept")
    assert out.getvalue() == ""
    assert "kept" in (tmp_path / "log.txt").read_text()


def test_progress_without_a_total_shows_a_count_and_no_time_left():
    out = io.StringIO()
    with Console(file=out).progress("reading", unit="files") as report:
        report(1200, None)
    assert out.getvalue().startswith("reading  1,200 files")
    assert "ETA" not in out.getvalue()


def test_speed_is_counts_over_seconds_of_the_recent_reports():
    now = [0.0]
    speed = Speed(100, clock=lambda: now[0])
    assert speed.per_second() == 0.0
    now[0] = 4.0
    speed.reached(120)
    assert speed.per_second() == pytest.approx(5.0)
    for _ in range(200):
        now[0] += 1.0
        speed.reached(120 + round(now[0] - 4))
    assert speed.per_second() == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (245, "4:05"), (7445, "2:04:05"), (266645, "3 d 2:04:05")])
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text
