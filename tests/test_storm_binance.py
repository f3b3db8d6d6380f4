"""A short storm of faults at the simulated Binance: nothing is lost, nothing leaks."""

import pytest

from tests import storm_binance


async def test_bars_are_exact_and_gaps_repaired_after_a_storm(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("WS_URL", "REST_URL", "WS_API_URL", "USDM_WS_URL", "USDM_REST_URL")
    for name, text in storm_binance.SETTINGS.items():
        monkeypatch.setenv(name, text)
    for key in keys:  # the storm sets them
        monkeypatch.setenv(f"PIKER_BINANCE__{key}", "")
    report = await storm_binance.storm(10.0, seed=2)
    assert report["wrong"] == []
    assert report["rows"] > 100 and report["gaps"] > 0
    assert report["unrepaired"] == 0
    assert report["leaked"] == [0, 0]
