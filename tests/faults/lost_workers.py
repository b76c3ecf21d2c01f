"""How often AiiDA's ZeroMQ broker does not notice that a worker with a task was killed.

    python tests/faults/lost_workers.py --kills 100

It probes its workers once, as soon as a connection breaks; a message to one that has just died may still be accepted,
and what that one did is then handed out when the next connection ends, or when the daemon is restarted. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import zmq
from aiida import __version__
from aiida.brokers.zeromq.protocol import MessageType, encode_message, make_task_message
from aiida.brokers.zeromq.server import ZeromqBrokerServer

PATIENCE_S = 4.0
"""After the kill; the broker looks for connections that broke once a second."""

WORKER = """
import sys, uuid
sys.path[:] = sys.argv[2].split(":")
from aiida.brokers.zeromq.protocol import MessageType, decode_message, encode_message, make_subscribe_message
import zmq
name = uuid.uuid4().hex
socket = zmq.Context().socket(zmq.DEALER)
socket.setsockopt_string(zmq.IDENTITY, name)
socket.connect(sys.argv[1])
socket.send_multipart([b"", encode_message(make_subscribe_message(MessageType.SUBSCRIBE_TASK, name, name, 200))])
while True:
    print(decode_message(socket.recv_multipart()[-1])["type"], flush=True)
"""


def is_noticed(broker: ZeromqBrokerServer, client: zmq.Socket[bytes]) -> bool:
    """Give a task to a worker, kill it, and see whether the broker takes the task back."""
    command = [sys.executable, "-c", WORKER, broker.router_endpoint, ":".join(sys.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        client.send_multipart([b"", encode_message(make_task_message({}, "client", True))])
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == MessageType.TASK.value
        worker.kill()
    end = time.monotonic() + PATIENCE_S
    while broker.get_status()["in_flight_tasks"] and time.monotonic() < end:
        time.sleep(0.02)
    return not broker.get_status()["in_flight_tasks"]


def main() -> None:
    """Kill workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    kills = parser.parse_args().kills
    lost = 0
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context, context.socket(zmq.DEALER) as client:
        sockets = Path(folder, "sockets")
        sockets.mkdir()
        broker = ZeromqBrokerServer(Path(folder, "tasks"), sockets)
        threading.Thread(target=broker.run_forever, daemon=True).start()
        while not broker.is_running:
            time.sleep(0.01)
        client.connect(broker.router_endpoint)
        for _ in range(kills):
            lost += not is_noticed(broker, client)
            for task in (*broker._task_worker_assignments, *broker._task_queue._processing):
                broker._release_task(task)
                broker._task_queue.ack(task)
            broker._task_queue.clear()
    print(json.dumps({"aiida": __version__, "kills": kills, "not_noticed": lost}))


if __name__ == "__main__":
    main()
