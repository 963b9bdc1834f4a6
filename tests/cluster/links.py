"""Machines of their own for tests: network namespaces of this one, joined by links of a given rate and delay.

For Linux, and as root. A process of a machine is started by `within`; every packet between two of them passes this
process, which counts it and passes it on when a real link would have.
"""

import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import count
from time import monotonic

_NETWORK = "10.77.0"
_NEW_NETWORK_NAMESPACE = 0x40000000
_SET_INTERFACE = 0x400454CA
_PACKETS_WITHOUT_HEADER = 0x1001
_LARGEST_PACKET = 2048


class Links:
    """A link for each machine, all to one switch: between two machines lie two links.

    bytes_between: that one machine sent another, headers included.
    """

    def __init__(self, machines: Sequence[str], *, bits_per_second: float, round_trip_s: float) -> None:
        self.addresses = {name: f"{_NETWORK}.{number}" for number, name in enumerate(machines, start=1)}
        self.bytes_between: Counter[tuple[str, str]] = Counter()
        self._seconds_a_byte = 8 / bits_per_second
        self._delay_s = round_trip_s / 4
        self._names = {int(address.rpartition(".")[2]): name for name, address in self.addresses.items()}
        self._ended, self._end = os.pipe()
        self._devices: dict[str, int] = {}

    def __enter__(self) -> "Links":
        with ExitStack() as stack:
            for end in (self._ended, self._end):
                stack.callback(os.close, end)
            for name, address in self.addresses.items():
                _ip("netns", "add", _namespace(name))
                stack.callback(_ip, "netns", "delete", _namespace(name))
                self._devices[name] = _device_in(_namespace(name))
                stack.callback(os.close, self._devices[name])
                _ip("-n", _namespace(name), "address", "add", f"{address}/24", "dev", "link")
                for device in ("lo", "link"):
                    _ip("-n", _namespace(name), "link", "set", "dev", device, "up")
            switch = threading.Thread(target=self._pass_on)
            switch.start()
            stack.callback(switch.join)
            stack.callback(os.write, self._end, b".")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def within(self, name: str) -> list[str]:
        """What comes before a command that runs on a machine."""
        return ["ip", "netns", "exec", _namespace(name)]

    def _pass_on(self) -> None:
        """Each packet waits its turn on the sender's link and on the receiver's, and travels on both."""
        poll = select.poll()
        senders = {device: name for name, device in self._devices.items()}
        for device in (*senders, self._ended):
            poll.register(device, select.POLLIN)
        free_s: Counter[tuple[str, str]] = Counter()
        order, travelling = count(), list[tuple[float, int, int, bytes]]()
        while True:
            wait_ms = max(0.0, 1e3 * (travelling[0][0] - monotonic())) if travelling else None
            for device, _ in poll.poll(wait_ms):
                if device == self._ended:
                    return
                packet, sender = os.read(device, _LARGEST_PACKET), senders[device]
                receiver = self._names.get(packet[19]) if packet[0] >> 4 == 4 else None
                if receiver is None:
                    continue
                self.bytes_between[sender, receiver] += len(packet)
                at_s, took_s = monotonic(), len(packet) * self._seconds_a_byte
                for link in ((sender, "up"), (receiver, "down")):
                    free_s[link] = max(at_s, free_s[link]) + took_s
                    at_s = free_s[link] + self._delay_s
                heapq.heappush(travelling, (at_s, next(order), self._devices[receiver], packet))
            while travelling and travelling[0][0] <= monotonic():
                *_, device, packet = heapq.heappop(travelling)
                with suppress(OSError):  # as a link that drops what its machine does not take
                    os.write(device, packet)


def possible() -> bool:
    """Whether this process may make such machines."""
    tried = subprocess.run(["ip", "netns", "add", _namespace("tried")], capture_output=True, check=False)
    if tried.returncode == 0:
        _ip("netns", "delete", _namespace("tried"))
    return tried.returncode == 0 and os.access("/dev/net/tun", os.W_OK)


def _namespace(name: str) -> str:
    return f"bench-{os.getpid()}-{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _device_in(namespace: str) -> int:
    """A network device `link` of the namespace, by the descriptor from which its packets are read."""
    made: list[int] = []

    def make() -> None:  # a thread of its own: it never comes back from the namespace
        with open(f"/run/netns/{namespace}") as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _NEW_NETWORK_NAMESPACE):
                raise OSError(ctypes.get_errno(), "setns")
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _SET_INTERFACE, struct.pack("16sH", b"link", _PACKETS_WITHOUT_HEADER))
        made.append(device)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]
