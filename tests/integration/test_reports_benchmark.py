"""The benchmark of reports measures what it says, here with few agents."""

import asyncio

from benchmarks import reports


async def test_every_report_sent_is_one_that_metrics_took() -> None:
    seen = await asyncio.to_thread(reports.run, agents=20, seconds=10.0)
    # One more or less for each agent: the clocks start between two reports. Agents that fall
    # behind on a busy machine catch up.
    assert 13 <= seen["reports_per_s"] <= 27
    assert 0 < seen["report_cpu_ratio"] < 1
    assert 10 << 20 < seen["rss_bytes"] < 1 << 30
