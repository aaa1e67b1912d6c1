"""The page of a running study is written again, and costs little."""

from bam_search.running.refresh import LEAST, SHARE, Refresh


def test_writing_takes_its_share_of_the_time_at_most() -> None:
    now, written = 0.0, []

    def write() -> None:
        nonlocal now
        written.append(now)
        now += 4.0

    refresh = Refresh(write, lambda: now)
    while now < 3600:
        refresh()
        now += 1.0
    assert written[0] == LEAST
    assert len(written) > 10
    assert 4.0 * len(written) / 3600 < SHARE + 0.002
