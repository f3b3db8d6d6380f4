"""The writer goes, however and whenever: one of the attached goes on for all."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator

import fakevenue
import pytest
import trio

import piker_core as pk
from piker_core import source
from tests.askers import Asker, Askers, Ids, ended, opened, wait_until

A, B, C, D = (f"{name}usd.fakevenue" for name in ("aaa", "bbb", "ccc", "ddd"))
ENDS = pytest.mark.parametrize("end", [Asker.kill, Asker.close])


@pytest.fixture(autouse=True)
def plan(namespace: str, monkeypatch: pytest.MonkeyPatch) -> fakevenue.Plan:
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    fakevenue.plan.__init__()  # type: ignore[misc]
    return fakevenue.plan


@pytest.fixture
def askers(plan: fakevenue.Plan) -> Iterator[Askers]:
    with Askers() as askers:
        yield askers


def writer_pid() -> int:
    with pk.attach_ticks("fakevenue") as ticks:
        return ticks.writer_pid if ticks.writer_alive else 0


def status(fqme: str) -> str:
    """The status of a market, nothing as long as it has no rings."""
    try:
        with pk.attach_bars(fqme) as bars:
            return bars.status
    except pk.NotFound:
        return ""


@ENDS
async def test_the_writers_end_is_told_at_once_not_looked_for(
    end: Callable[[Asker], None], askers: Askers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LOOK_S", 600.0)
    writer = await askers.open(A)
    async with pk.open_feed([A]) as feed:
        rt = feed.flumes[A].rt
        ids = Ids(A)
        await ids.more()
        generation, head = rt.generation, rt.head
        end(writer)
        await wait_until(lambda: rt.generation == generation + 1)
        await wait_until(lambda: rt.head > head)
        assert feed.roles == {"fakevenue": "writer"} and writer_pid() == os.getpid()
        await ids.more()
        ids.assert_whole()


@ENDS
async def test_what_others_have_asked_for_goes_on(
    end: Callable[[Asker], None], askers: Askers
) -> None:
    writer = await askers.open(A, D)
    async with pk.open_feed([A, B]):
        other = await askers.open(C)
        ids = [Ids(fqme) for fqme in (A, B, C)]
        end(writer)
        await wait_until(lambda: writer_pid() in (os.getpid(), other.pid))
        for market in ids:
            await market.more()
            market.assert_whole()
        await wait_until(lambda: status(D) == "stopped")  # nobody else wants it
        assert {status(fqme) for fqme in (A, B, C)} == {"live"}


@ENDS
async def test_one_of_many_takes_over_and_the_others_ask_it(
    end: Callable[[Asker], None], askers: Askers
) -> None:
    writer = await askers.open(A)
    many = [await askers.open(A, B) for _ in range(5)]
    last = await askers.open(C)
    alive = {asker.pid: asker for asker in (*many, last)}
    while alive:
        ids = Ids(C if last.pid in alive else B)
        end(writer)
        await wait_until(lambda: writer_pid() in alive)
        await ids.more()
        ids.assert_whole()
        writer = alive.pop(writer_pid())
    with pk.attach_ticks("fakevenue") as ticks:
        assert ticks.generation == 7


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_markets_are_fed_for_who_is_left_in_every_order_of_deaths(
    order: tuple[int, ...], askers: Askers
) -> None:
    fqmes = (A, B, C)
    ends = itertools.cycle((Asker.kill, Asker.close))
    processes = [await askers.open(fqme) for fqme in fqmes]
    left = dict(zip(fqmes, processes, strict=True))
    for number in order:
        next(ends)(left.pop(fqmes[number]))
        pids = {asker.pid for asker in left.values()} or {0}
        await wait_until(lambda pids=pids: writer_pid() in pids)
        for fqme in left:
            await Ids(fqme).more()
            assert status(fqme) == "live"
        for fqme in set(fqmes) - set(left) if left else ():
            await wait_until(lambda fqme=fqme: status(fqme) == "stopped")


async def test_a_client_that_was_slow_asks_again_by_itself(
    askers: Askers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "REASK_S", 0.2)
    writer = await askers.open(A)
    slow = await askers.open(B)
    async with pk.open_feed([A]) as feed:
        os.kill(slow.pid, signal.SIGSTOP)
        ids = Ids(B)
        writer.kill()
        await ids.more()  # it is fed for a while
        await wait_until(lambda: status(B) == "stopped")
        os.kill(slow.pid, signal.SIGCONT)
        await wait_until(lambda: status(B) == "live")
        await ids.more()
        ids.assert_whole()
        slow.kill()
        await wait_until(lambda: status(B) == "stopped")
        assert feed.roles == {"fakevenue": "writer"}


@ENDS
async def test_who_waits_for_an_answer_becomes_the_writer_or_asks_the_next(
    end: Callable[[Asker], None], askers: Askers
) -> None:
    with Askers(FAKEVENUE_MUTE="bbb") as mute:
        writer = await mute.open(A)
        waiting = [await askers.start(B), await askers.start(B, C)]
        await wait_until(lambda: status(B) == "starting")
        end(writer)
        for asker in waiting:
            await opened(asker)
        assert writer_pid() in {asker.pid for asker in waiting}
        await Ids(B).more()


async def test_an_asker_that_fails_as_the_writer_harms_nobody(askers: Askers) -> None:
    writer = await askers.open(A)
    async with pk.open_feed([A]) as feed:
        for _ in range(3):
            asker = await askers.start(B, "mute.fakevenue")
            await wait_until(lambda: status("mute.fakevenue") == "starting")
            asker.kill()
        writer.kill()
        await wait_until(lambda: feed.roles == {"fakevenue": "writer"})
        await Ids(A).more()
        bad = await askers.start("nosuch.fakevenue")
        assert (await ended(bad))["kind"] == "NotFound"


async def test_a_provider_in_trouble_is_asked_again_by_who_took_over(
    askers: Askers, caplog: pytest.LogCaptureFixture
) -> None:
    writer = await askers.open(A)
    async with pk.open_feed([A]) as feed:
        fakevenue.plan.start_error = OSError("no network")
        writer.kill()
        await wait_until(lambda: fakevenue.plan.sessions >= 2)
        assert feed.roles == {"fakevenue": "writer"}
        assert feed.flumes[A].status == "reconnecting"
        fakevenue.plan.start_error = None
        await Ids(A).more()
        await wait_until(lambda: feed.flumes[A].status == "live")
    assert "the stream does not start: no network" in caplog.text


async def test_a_market_that_is_refused_then_does_not_keep_the_others_from_starting(
    askers: Askers,
) -> None:
    fqmes = (A, B, C)
    writer = await askers.open(*fqmes)
    async with pk.open_feed(fqmes) as feed:
        fakevenue.plan.refused = {"bbbusd"}
        writer.kill()
        for fqme in (A, C):
            await Ids(fqme).more()
        assert feed.flumes[B].status == "reconnecting"
        assert {feed.flumes[fqme].status for fqme in (A, C)} == {"live"}
        fakevenue.plan.refused.clear()
        ids = [Ids(fqme) for fqme in fqmes]
        for market in ids:
            await market.more()
            market.assert_whole()
        assert feed.flumes[B].status == "live"


async def test_a_market_that_is_not_fed_yet_after_a_take_over_does_not_look_live(
    askers: Askers,
) -> None:
    writer = await askers.open(A, D)
    async with pk.open_feed([A]) as feed:
        fakevenue.plan.describe_error = OSError("no network")
        writer.kill()
        await wait_until(lambda: feed.flumes[A].status == "reconnecting")
        await wait_until(lambda: status(D) == "stopped")
        assert feed.flumes[A].market.base.name == "aaa"
        fakevenue.plan.describe_error = None
        await Ids(A).more()
        await wait_until(lambda: feed.flumes[A].status == "live")


async def test_a_new_writer_says_of_what_a_killed_one_left_that_it_is_stopped(
    askers: Askers,
) -> None:
    writer = await askers.open(A, B)
    writer.kill()
    await wait_until(lambda: not writer_pid())
    assert status(B) == "live"
    async with pk.open_feed([A]):
        await wait_until(lambda: status(B) == "stopped")
        await askers.open(B)
        assert status(B) == "live"


async def test_many_that_start_at_once_have_one_writer(askers: Askers) -> None:
    many = [await askers.start(fqme) for fqme in (A, B, C, A, B, C)]
    for asker in many:
        await opened(asker)
    assert writer_pid() in {asker.pid for asker in many}
    for fqme in (A, B, C):
        await Ids(fqme).more()


async def test_a_writer_that_hangs_is_one_sentence(
    askers: Askers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__FIRST_QUOTE_S", "0.2")
    monkeypatch.setattr(source, "LIVE_S", 0.0)
    monkeypatch.setattr(source, "ANSWER_S", 0.1)
    writer = await askers.open(A)
    os.kill(writer.pid, signal.SIGSTOP)
    with pytest.raises(pk.FeedError, match=f"process {writer.pid} .* does not answer"):
        async with pk.open_feed([B]):
            raise AssertionError("it opened")


# Without a control socket


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder for sockets."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")


async def test_without_a_socket_what_is_fed_can_be_attached_to_and_taken_over(
    nowhere: None, askers: Askers, caplog: pytest.LogCaptureFixture
) -> None:
    writer = await askers.open(A, B)
    async with pk.open_feed([A]) as feed:
        assert feed.roles == {"fakevenue": "reader"}
        assert feed.flumes[A].first_quote["last"] > 0
        ids = [Ids(A), Ids(B)]
        writer.kill()
        for market in ids:
            await market.more()
            market.assert_whole()
        assert feed.roles == {"fakevenue": "writer"}
    assert [r.getMessage()[:33] for r in caplog.records] == [
        "fakevenue has no control socket, "
    ]


async def test_without_a_socket_what_is_not_fed_is_one_sentence(
    nowhere: None, askers: Askers
) -> None:
    writer = await askers.open(A)
    with pytest.raises(pk.FeedError) as caught:
        async with pk.open_feed([A, B]):
            raise AssertionError("it opened")
    for text in (f"process {writer.pid} writes fakevenue's rings", f"without {B},"):
        assert text in str(caught.value)
    assert "control socket is missing (/nonexistent/piker-core/" in str(caught.value)


async def test_an_engine_of_a_recorder_is_attached_to(namespace: str) -> None:
    from piker_core.feeder import run_clock

    with pk.open_engine("fakevenue") as engine:
        engine.add_market(A).set_status("live")
        engine.add_market(B)  # starting, and without a price
        engine.add_market(C).set_status("stopped")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_clock, engine)
            async with pk.open_feed([A]) as feed:
                assert feed.roles == {"fakevenue": "reader"}
            for fqme in (B, C, D):
                named = f"process {os.getpid()} .* without {fqme}"
                with pytest.raises(pk.FeedError, match=named):
                    async with pk.open_feed([A, fqme]):
                        raise AssertionError("it opened")
            nursery.cancel_scope.cancel()
