"""Which callbacks are made, when and in which order."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from forebay.v1.inference_pb2 import InferResponse
from forebay.v1.task_pb2 import Task
from services.autoscaler.callbacks import addresses, message, retries, signing
from services.autoscaler.callbacks.hosts import (
    FIRST_REST_S,
    LONGEST_REST_S,
    LONGEST_WAIT_S,
    MAX_HOSTS,
    MAX_RUNNING,
    MAX_RUNNING_PER_HOST,
    MAX_WAITING,
    MAX_WAITING_PER_HOST,
    Hosts,
    Offer,
)
from services.wire.instants import timestamp

SECRET = "whsec_" + "A" * 43 + "="
OTHER_SECRET = "whsec_" + "B" * 43 + "="
NOW_S = 1_800_000_000.0


@pytest.mark.parametrize("text", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_may_be_called(text: str) -> None:
    assert addresses.refusal(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1%eth0",
        "fec0::1",
        "fd00::1",
        "ff02::1",
        "2001:db8::1",
        "localhost",
        "",
    ],
)
def test_no_other_address_may_be_called(text: str) -> None:
    assert addresses.refusal(text)


def test_what_stands_for_a_public_address_may_be_called() -> None:
    assert addresses.refusal("::ffff:93.184.216.34") == ""
    assert addresses.refusal("64:ff9b::5db8:d822") == ""


def test_an_operator_allows_networks() -> None:
    allowed = addresses.parse_networks("10.1.0.0/16, fd00::/8,")
    assert addresses.refusal("10.1.2.3", allowed) == ""
    assert addresses.refusal("::ffff:10.1.2.3", allowed) == ""
    assert addresses.refusal("fd00::1", allowed) == ""
    assert "private" in addresses.refusal("10.2.0.1", allowed)
    assert addresses.refusal("127.0.0.1", allowed)


@pytest.mark.parametrize("text", ["10.1.0.0/33", "localhost", "10.1.0.1/16"])
def test_a_network_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no network"):
        addresses.parse_networks(f"10.0.0.0/8,{text}")


def test_attempts_go_on_for_a_day_at_growing_distances() -> None:
    age_s, ages = 0.0, [0.0]
    while (pause_s := retries.pause_s(age_s, 0.0)) is not None:
        age_s += pause_s
        ages.append(age_s)
    assert ages[:7] == [0, 5, 25, 125, 625, 3125, 6725]
    assert ages[-2] < retries.GIVEN_UP_AFTER_S <= ages[-1]
    assert len(ages) == 30


def test_calls_that_failed_together_come_again_apart() -> None:
    assert retries.pause_s(0.0, 1.0) == pytest.approx(5.5)


def _task(**fields: object) -> Task:
    url = "https://example.com:8443/done?token=secret"
    task = Task(
        name="deployments/add/tasks/t1",
        state=Task.STATE_SUCCEEDED,
        callback_url=url,
        labels={"order": "7"},
        end_time=timestamp(NOW_S),
        result=InferResponse(id="1"),
    )
    task.MergeFrom(Task(**fields))
    return task


def test_a_message_has_the_task_without_its_result() -> None:
    made = message.of(_task(result_size_bytes=5))
    said = json.loads(made.body)
    assert said["type"] == "task.succeeded"
    assert said["timestamp"] == "2027-01-15T08:00:00Z"
    assert said["data"]["name"] == "deployments/add/tasks/t1"
    assert said["data"]["labels"] == {"order": "7"}
    assert said["data"]["resultSizeBytes"] == "5"
    assert "result" not in said["data"]
    assert made.host == "example.com:8443"


def test_the_id_of_a_message_is_the_same_at_every_attempt_and_for_no_other_end() -> None:
    assert message.of(_task()).id == message.of(_task(error="x")).id
    assert message.of(_task()).id != message.of(_task(end_time=timestamp(NOW_S + 1))).id
    assert message.of(_task()).id != message.of(_task(name="deployments/add/tasks/t2")).id


@pytest.mark.parametrize(
    "url", ["", "example.com", "ftp://a.b/", "http:///x", "http://[::1", "x:y"]
)
def test_an_address_that_cannot_be_called_is_told(url: str) -> None:
    task = _task()
    task.callback_url = url
    with pytest.raises(message.UnusableOrderError):
        message.of(task)


def test_each_secret_signs_so_that_a_receiver_can_change_to_the_next() -> None:
    made = message.of(_task())
    headers = signing.Signer([SECRET, OTHER_SECRET], "f").headers(made, NOW_S)
    assert headers["webhook-timestamp"] == str(int(NOW_S))
    signatures = headers["webhook-signature"].split()
    assert len(signatures) == 2
    now = datetime.fromtimestamp(NOW_S, UTC)
    assert signatures == [
        Webhook(secret).sign(made.id, now, made.body.decode()) for secret in (SECRET, OTHER_SECRET)
    ]


@pytest.mark.parametrize("text", ["", "whsec_", "A" * 43 + "=", "whsec_AAAA", f"{SECRET}\nnone"])
def test_a_secret_that_is_none_is_told_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    with pytest.raises(signing.SecretError, match="callback_secret_file") as caught:
        signing.read(file)
    assert "AAAA" not in str(caught.value)


def test_a_secret_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(signing.SecretError, match="cannot be read"):
        signing.read(tmp_path / "nothing")


def test_a_host_that_has_not_answered_yet_gets_one_call() -> None:
    hosts: Hosts[int] = Hosts()
    for number in range(6):
        assert hosts.offer(number, "a", 0.0) is Offer.TAKEN
    assert hosts.start(0.0) == [0]
    assert hosts.start(0.0) == []
    assert hosts.ended("a", True, 1.0) == []
    assert hosts.start(1.0) == list(range(1, 1 + MAX_RUNNING_PER_HOST))


def test_a_host_that_does_not_answer_is_left_alone_for_longer_each_time() -> None:
    hosts: Hosts[int] = Hosts()
    now_s = 0.0
    for rest_s in (FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S):
        for number in range(3):
            assert hosts.offer(number, "a", now_s) is Offer.TAKEN
        assert hosts.start(now_s) == [0]
        assert hosts.ended("a", False, now_s) == [1, 2], "they would fail too"
        assert hosts.offer(9, "a", now_s + rest_s - 0.1) is Offer.RESTS
        now_s += rest_s
    for _ in range(20):
        hosts.offer(0, "a", now_s)
        hosts.start(now_s)
        hosts.ended("a", False, now_s)
        now_s += LONGEST_REST_S
    assert hosts.offer(0, "a", now_s) is Offer.TAKEN


def test_hosts_that_never_answer_do_not_hold_up_another() -> None:
    hosts: Hosts[str] = Hosts()
    for number in range(10):
        for _ in range(20):
            hosts.offer(f"dead{number}", f"dead{number}", 0.0)
    hosts.offer("alive", "alive", 0.0)
    assert "alive" in hosts.start(0.0)


def test_hosts_take_turns_where_there_are_more_than_places() -> None:
    hosts: Hosts[str] = Hosts()
    for number in range(MAX_RUNNING + 4):
        hosts.offer(f"h{number}", f"h{number}", 0.0)
        hosts.offer(f"h{number}", f"h{number}", 0.0)
    first = hosts.start(0.0)
    assert first == [f"h{number}" for number in range(MAX_RUNNING)]
    for host in first:
        hosts.ended(host, True, 1.0)
    assert set(hosts.start(1.0)) >= {f"h{MAX_RUNNING + number}" for number in range(4)}


def test_what_waits_is_bounded() -> None:
    hosts: Hosts[int] = Hosts()
    taken = [hosts.offer(number, "a", 0.0) for number in range(MAX_WAITING_PER_HOST + 1)]
    assert taken[-2:] == [Offer.TAKEN, Offer.CROWDED]
    number = 0
    while not hosts.full:
        hosts.offer(number, f"h{number // 10}", 0.0)
        number += 1
    assert number == MAX_WAITING - MAX_WAITING_PER_HOST
    assert len(hosts.clear()) == MAX_WAITING
    assert not hosts.full


def test_what_could_not_begin_for_long_goes_back() -> None:
    hosts: Hosts[int] = Hosts()
    hosts.offer(1, "a", 0.0)
    hosts.offer(2, "a", 0.0)
    hosts.offer(3, "a", 9.0)
    assert hosts.start(0.0) == [1]
    assert hosts.overdue(LONGEST_WAIT_S - 0.1) == []
    assert hosts.overdue(LONGEST_WAIT_S) == [2]


def test_hosts_are_forgotten_before_they_are_too_many() -> None:
    hosts: Hosts[int] = Hosts()
    for number in range(2 * MAX_HOSTS):
        name = f"h{number}"
        assert hosts.offer(number, name, 0.0) is Offer.TAKEN
        assert hosts.start(0.0) == [number]
        hosts.ended(name, number % 2 == 0, 0.0)
    assert len(hosts._hosts) <= MAX_HOSTS
