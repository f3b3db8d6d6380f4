"""A short storm of faults at the simulated venue: nothing is lost, nothing leaks."""

import pytest
import storm


async def test_bars_are_exact_and_gaps_repaired_after_a_storm(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in storm.SETTINGS.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("PIKER_KRAKEN__WS_URL", "")
    monkeypatch.setenv("PIKER_KRAKEN__REST_URL", "")
    report = await storm.storm(10.0, seed=2)
    assert report["wrong"] == []
    assert report["rows"] > 100 and report["gaps"] > 0
    assert report["unrepaired"] == 0
    assert report["leaked"] == [0, 0]
