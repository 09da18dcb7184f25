"""Write what passes an interface as a pcap stream to standard output.

A program of its own, run inside a lab by `fwlab capture`. It exists because tcpdump insists on giving up root before
it writes, which a user namespace with a single mapped user refuses. It must import nothing heavy: it starts with
every capture.
"""

import argparse
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time

PCAP_MAGIC_NANOSECONDS = 0xA1B23C4D
LINKTYPE_ETHERNET = 1
SNAPLEN = 262_144
"""Bytes of one packet; the same as tcpdump's default. A segment before segmentation offload has up to 64 KiB."""
RECEIVE_BUFFER = 8 * 1024 * 1024
"""Bytes asked for; the kernel gives an ordinary user at most net.core.rmem_max."""
ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_STATISTICS = 6
PACKET_MR_PROMISC = 1
SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35


def attach_filter(sock: socket.socket, program: str) -> None:
    """Attach a classic BPF program in tcpdump's `-ddd` form, its lines joined by commas."""
    lines = [[int(word) for word in line.split()] for line in program.split(",") if line.strip()]
    count, instructions = lines[0][0], lines[1:]
    if count != len(instructions):
        raise ValueError(f"a filter of {count} instructions came with {len(instructions)}")
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *item) for item in instructions))
    # struct sock_fprog: unsigned short length, pointer (aligned to its size)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", count, ctypes.addressof(code)))


def open_socket(interface: str, program: str) -> socket.socket:
    """A packet socket on `interface`, promiscuous, that has seen nothing from before its filter was there."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    if program:
        attach_filter(sock, program)
    index = socket.if_nametoindex(interface)
    sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b""))
    sock.bind((interface, ETH_P_ALL))
    return sock


def timestamp(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """When the kernel saw the packet, as seconds and nanoseconds."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return seconds, nanoseconds
    return divmod(time.time_ns(), 1_000_000_000)


def capture(interface: str, count: int | None, seconds: float | None, program: str, out: int) -> int:
    """Copy packets to `out` until the count, the time, a signal, or a closed pipe. Returns how many were written."""
    ended_read, ended_write = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.close(ended_write) if _still_open(ended_write) else None)
    sock = open_socket(interface, program)
    if not _written(out, struct.pack("=IHHiIII", PCAP_MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET)):
        return 0
    print(f"capturing on {interface}", file=sys.stderr, flush=True)
    deadline = None if seconds is None else time.monotonic() + seconds
    written = 0
    while count is None or written < count:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        readable, _, _ = select.select([sock.fileno(), ended_read], [], [], left)
        if ended_read in readable:
            break
        if not readable:
            continue
        data, ancillary, _, _ = sock.recvmsg(SNAPLEN, 128)
        when, nanoseconds = timestamp(ancillary)
        header = struct.pack("=IIII", when & 0xFFFFFFFF, nanoseconds, len(data), len(data))
        if not _written(out, header + data):
            break
        written += 1
    seen, dropped = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(f"{written} packets captured, {seen} seen, {dropped} dropped by the kernel", file=sys.stderr, flush=True)
    return written


def _written(fd: int, data: bytes) -> bool:
    """Write all of it; False where nobody reads any more. A capture that cannot be kept ends the program."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view):]
    except BrokenPipeError:
        return False
    except OSError as error:
        print(f"fwlab: the capture cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(os.EX_IOERR)
    return True


def _still_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def main() -> None:
    """Command line of the program inside the lab."""
    parser = argparse.ArgumentParser(prog="capture")
    parser.add_argument("interface")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--program", default="")
    arguments = parser.parse_args()
    try:
        capture(arguments.interface, arguments.count, arguments.seconds, arguments.program, sys.stdout.fileno())
    except OSError as error:
        print(f"fwlab: {arguments.interface}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
