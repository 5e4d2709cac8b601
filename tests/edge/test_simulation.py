"""What flow control makes of clients of many speeds; the plot and its data lie in the tests' cache, and the output says
where: a test's own directory is gone behind it."""

from __future__ import annotations

import csv

import pytest

from tests.edge.simulation import Client, Row, many, simulate, write

SECONDS = 110


@pytest.fixture(scope="module")
def world(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Client], list[Row]]:
    clients = many()
    rows = simulate(clients, SECONDS)
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # a run may have none
    data, plot = write(rows, cache.mkdir("flow_control") if cache else tmp_path_factory.mktemp("flow_control"))
    with data.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(clients) * SECONDS
    assert plot.read_text(encoding="utf-8").count("<polyline") == 2 * len(clients)
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nflow control, simulated: {plot}, {data}")
    return {client.name: client for client in clients}, rows


World = tuple[dict[str, Client], list[Row]]


def rows_of(world: World, name: str, since: int = 0) -> list[Row]:
    found = [row for row in world[1] if row.client == name and row.second >= since]
    assert found
    return found


def test_a_fast_client_keeps_all_of_its_window(world: World) -> None:
    assert {(row.window, row.state) for row in rows_of(world, "fast")} == {(1000, "healthy")}
    assert world[0]["fast"].said == []


@pytest.mark.parametrize(("name", "per_s", "latency_ms"), [("works on 500/s", 500, 400), ("works on 50/s", 50, 1200)])
def test_a_slow_worker_loses_its_queue_and_none_of_its_speed(
    world: World, name: str, per_s: float, latency_ms: float
) -> None:
    """Its messages wait for it no longer, but in the subscription, where another consumer may take them."""
    late = rows_of(world, name, since=80)
    assert sum(row.acked_per_s for row in late) / len(late) == pytest.approx(per_s, rel=0.05)
    assert max(row.ack_latency_ms for row in late) < latency_ms < 1000 / per_s * 1000
    assert max(row.window for row in late) < 500


def test_a_client_that_acks_late_is_not_mistaken_for_a_slow_one(world: World) -> None:
    assert {(row.window, row.state) for row in rows_of(world, "acks after 5 s, 100/s arrive")} == {(1000, "healthy")}
    assert {row.window for row in rows_of(world, "acks after 5 s, backlog", since=30)} == {1000}


def test_a_slow_reader_is_fed_as_fast_as_it_reads_and_its_socket_is_not_full(world: World) -> None:
    late = rows_of(world, "reads 200 kB/s", since=30)
    assert sum(row.acked_per_s for row in late) / len(late) == pytest.approx(200, rel=0.05)
    assert max(row.unsent_bytes for row in late) == 0
    assert {row.state for row in late} <= {"healthy", "throttled"}


def test_bursts_are_worked_off_at_full_speed(world: World) -> None:
    name = "bursts of 5,000, works on 1,000/s"
    assert {row.in_flight for row in rows_of(world, name) if row.second % 20 >= 7} == {0}  # five seconds, at its speed
    assert world[0][name].done == pytest.approx(5000 * (SECONDS // 20 + 1), rel=0.01)
    assert {row.state for row in rows_of(world, name)} <= {"healthy", "throttled"}


def test_a_client_that_stops_is_paused_and_comes_back(world: World) -> None:
    rows = rows_of(world, "stops from 30 to 75 s")
    assert [row.state for row in rows if row.second == 72] == ["paused"]
    late = [row.acked_per_s for row in rows if row.second > 90]
    assert sum(late) / len(late) == pytest.approx(2000, rel=0.05)
    assert world[0]["stops from 30 to 75 s"].closed_ms is None


def test_a_client_that_does_not_read_for_a_while_is_paused_and_comes_back(world: World) -> None:
    name = "does not read from 30 to 45 s"
    assert [(row.window, row.state) for row in rows_of(world, name) if row.second == 42] == [(0, "paused")]
    assert {(row.window, row.state) for row in rows_of(world, name, since=70)} == {(1000, "healthy")}


def test_a_silent_client_is_closed_and_costs_a_message_two_attempts_at_most(world: World) -> None:
    client = world[0]["never acks"]
    assert client.closed_ms == pytest.approx(30_000 + 60_000, abs=1000)
    assert [(size, reason) for _, size, reason in client.said] == [(8, "leases_expired"), (0, "leases_expired")]
    assert client.position < 2000 + 100  # delivered: the window once, and the floor of it again while throttled


def test_a_client_that_never_reads_is_closed_and_what_it_was_given_goes_back_at_once(world: World) -> None:
    client = world[0]["never reads"]
    assert client.closed_ms == pytest.approx(60_000, abs=1000)
    paused = [row for row in rows_of(world, "never reads") if row.state == "paused"]
    assert max(row.in_flight for row in paused) <= 500  # the frame that the kernel has; the other was recalled
    assert [row.in_flight for row in paused if row.second == 35] == [0]
