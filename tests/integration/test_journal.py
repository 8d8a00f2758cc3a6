"""The journal of decisions in a real stream."""

import asyncio
from pathlib import Path

from forebay.v1.scaling_pb2 import ScaleDecision
from services.autoscaler.journal import MAX_GAPS, Journal
from services.wire import streams, subjects
from services.wire.nats_link import NatsLink
from tests.support.control_plane import linked
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer


async def _fill(link: NatsLink, deployment: str, count: int) -> None:
    value = ScaleDecision(reason=deployment).SerializeToString()
    for start in range(0, count, 100):
        await asyncio.gather(
            *(
                link.jetstream.publish(subjects.decision(deployment), value)
                for _ in range(start, min(count, start + 100))
            )
        )


async def _all(journal: Journal, deployment: str, size: int) -> list[str]:
    names: list[str] = []
    before: int | None = None
    while True:
        page, before = await journal.page(deployment, before, size)
        assert len(page) <= size
        names += [decision.name for decision in page]
        if before is None:
            return names


async def test_a_busy_deployment_hides_no_other_one(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            journal = Journal(link)
            await streams.ensure_decisions(link.jetstream)
            await _fill(link, "quiet", 3)
            await _fill(link, "busy", streams.MAX_DECISIONS_PER_DEPLOYMENT + MAX_GAPS + 100)
            await _fill(link, "late", 1)
            names = await _all(journal, "", 1000)
            assert names[0].startswith("deployments/late/")
            assert len(names) == len(set(names)) == 3 + streams.MAX_DECISIONS_PER_DEPLOYMENT + 1
            assert [name.split("/")[1] for name in names[-3:]] == ["quiet"] * 3
            assert len(await _all(journal, "quiet", 2)) == 3
            assert await _all(journal, "nobody", 2) == []


async def test_a_decision_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            journal = Journal(link)
            await streams.ensure_decisions(link.jetstream)
            await _fill(link, "add", 1)
            async with journal.following("") as decisions:
                await link.jetstream.publish(subjects.decision("add"), b"\xff\xff")
                await _fill(link, "add", 1)
                async with asyncio.timeout(30):
                    assert (await anext(decisions)).name == "deployments/add/decisions/3"
            kept = [f"deployments/add/decisions/{number}" for number in (3, 1)]
            for deployment in ("", "add"):
                assert await _all(journal, deployment, 1) == kept
            assert await journal.get("add", 2) is None


async def test_what_is_appended_while_nats_is_away_is_written_when_it_is_back(
    tmp_path: Path,
) -> None:
    with NatsServer(tmp_path / "nats") as server:
        async with linked(server.url) as link:
            journal = Journal(link)
            await streams.ensure_decisions(link.jetstream)
            writing = asyncio.create_task(journal.run())
            server.stop()
            await eventually(lambda: not link.connected)
            journal.append("add", ScaleDecision(reason="first", target_after=1))
            journal.append("add", ScaleDecision(reason="second", target_after=2))
            server.start()

            async def both() -> bool:
                found, _ = await journal.page("add", None, 10)
                return [d.reason for d in found] == ["second", "first"]

            await eventually(lambda: link.connected)
            await eventually(both)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
