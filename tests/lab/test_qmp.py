from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from highmem.lab.errors import LabError
from highmem.lab.qmp import Monitor

Answer = Callable[[dict], list[dict | bytes]]


@pytest.fixture
def pair() -> Iterator[tuple[Monitor, socket.socket]]:
    ours, theirs = socket.socketpair()
    monitor = Monitor(ours)
    yield monitor, theirs
    monitor.close()
    theirs.close()


def serve(theirs: socket.socket, answer: Answer) -> None:
    def work() -> None:
        with contextlib.suppress(OSError):  # the test is over, and its sockets are closed
            talk()

    def talk() -> None:
        theirs.sendall(b'{"QMP": {}}\r\n')
        rest = b""
        while data := theirs.recv(4096):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                for reply in answer(json.loads(line)):
                    raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                    theirs.sendall(raw + b"\r\n")

    threading.Thread(target=work, daemon=True).start()


def agreeable(request: dict) -> list[dict | bytes]:
    event = {"event": "STOP", "data": {}}
    return [event, {"return": {"said": request["execute"]}, "id": request["id"]}]


def test_events_between_a_command_and_its_answer_are_kept(
    pair: tuple[Monitor, socket.socket],
) -> None:
    monitor, theirs = pair
    serve(theirs, agreeable)
    monitor.begin(5)
    assert monitor.execute("stop") == {"said": "stop"}
    assert [event["event"] for event in monitor.events] == ["STOP", "STOP"]


def test_an_event_that_came_with_an_answer_is_not_overlooked(
    pair: tuple[Monitor, socket.socket],
) -> None:
    monitor, theirs = pair
    late = b'{"event": "BLOCK_IO_ERROR"}'
    serve(theirs, lambda asked: [json.dumps({"return": {}, "id": asked["id"]}).encode(), late])
    monitor.begin(5)
    monitor.execute("stop")
    monitor.pump()
    assert {event["event"] for event in monitor.events} == {"BLOCK_IO_ERROR"}


def test_a_refusal_is_told_with_its_reason(pair: tuple[Monitor, socket.socket]) -> None:
    monitor, theirs = pair

    def answer(asked: dict) -> list[dict | bytes]:
        if asked["execute"] == "qmp_capabilities":
            return [{"return": {}, "id": asked["id"]}]
        return [{"error": {"class": "GenericError", "desc": "no such file"}, "id": asked["id"]}]

    serve(theirs, answer)
    monitor.begin(5)
    with pytest.raises(LabError, match="refused pmemsave: no such file"):
        monitor.execute("pmemsave", val=0)


@pytest.mark.parametrize("greeting", [b"hello?\r\n", b"[1]\r\n", b"\xff\xfe\r\n"])
def test_what_is_no_monitor_is_said(pair: tuple[Monitor, socket.socket], greeting: bytes) -> None:
    monitor, theirs = pair
    theirs.sendall(greeting)
    with pytest.raises(LabError, match="does not speak its protocol"):
        monitor.begin(5)


def test_silence_and_a_closed_end_are_different(pair: tuple[Monitor, socket.socket]) -> None:
    monitor, theirs = pair
    with pytest.raises(LabError, match="does not answer"):
        monitor.begin(0.1)
    theirs.close()
    with pytest.raises(LabError, match="QEMU ended"):
        monitor.begin(5)
    assert monitor.closed
    with pytest.raises(LabError, match="QEMU ended"):
        monitor.execute("stop")


def test_an_answer_without_end_is_given_up(
    pair: tuple[Monitor, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("highmem.lab.qmp._LINE_LIMIT", 1000)
    monitor, theirs = pair
    theirs.sendall(b"x" * 2000)
    with pytest.raises(LabError, match="without end"):
        monitor.begin(5)
