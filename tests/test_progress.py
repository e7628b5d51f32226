"""Progress where there is no terminal."""

from __future__ import annotations

import time

import pytest

from genomamba import progress


def test_without_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.05)
    with progress.progress_bar() as bar:
        task = bar.add_task("working", total=2, note="on it")
        bar.advance(task)
        began = time.perf_counter()
        while "1/2" not in (printed := capsys.readouterr().err) and time.perf_counter() - began < 30:
            time.sleep(0.02)
        bar.advance(task)
    assert "working" in printed
    assert "ETA" in printed
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2/2 took 0:0" in last
    assert "on it" in last


def test_on_an_error_nothing_more_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.05)

    def fail() -> None:
        with progress.progress_bar() as bar:
            bar.add_task("working", total=2, note="")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    capsys.readouterr()
    time.sleep(0.3)
    assert not capsys.readouterr().err
