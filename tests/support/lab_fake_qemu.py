"""A program in place of QEMU: it speaks its protocols and then misbehaves as it is told.

Started with QEMU's command line.  What to do is the word in the file ``behaviour`` beside it;
it writes its process id to ``pid`` there.  A folder ``recording`` beside it is brought back.
"""

from __future__ import annotations

import io
import json
import os
import re
import select
import socket
import stat
import sys
import tarfile
import time
from pathlib import Path

_HERE = Path(__file__).parent


def install(folder: Path, behaviour: str) -> Path:
    """A program in *folder* that behaves so; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "qemu-system-i386"
    text = Path(__file__).read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "behaviour").write_text(behaviour)
    return program


class Fake:
    """QEMU as far as the lab sees it."""

    def __init__(self, arguments: list[str]) -> None:
        joined = "\n".join(arguments)
        self.ends = {
            name: socket.socket(fileno=int(number))
            for name, number in re.findall(r"socket,id=([a-z]+),fd=([0-9]+)", joined)
        }
        disk = re.search(r"^file=(.*),format=raw", joined, re.MULTILINE)
        self.disk = Path(disk[1].replace(",,", ",")) if disk else None
        self.rest = b""
        self.ended = False

    def monitor(self, message: dict) -> None:
        self.ends["monitor"].sendall(json.dumps(message).encode() + b"\r\n")

    def greet(self) -> None:
        self.monitor({"QMP": {"version": {}, "capabilities": []}})
        self.serve(0.5, stop_at="qmp_capabilities")

    def serve(self, seconds: float, stop_at: str = "") -> None:
        """Answer commands and listen for ``end`` that long."""
        deadline = time.monotonic() + seconds
        ends = [self.ends["monitor"], self.ends["control"]]
        while (left := deadline - time.monotonic()) > 0:
            for end in select.select(ends, [], [], left)[0]:
                data = end.recv(65536)
                if not data:
                    sys.exit(0)
                if end is self.ends["control"]:
                    self.ended |= b"end" in data
                    continue
                self.rest += data
                *lines, self.rest = self.rest.split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    self.answer(request)
                    if request["execute"] == stop_at:
                        return
            if self.ended:
                return

    def answer(self, request: dict) -> None:
        arguments = request.get("arguments", {})
        result: object = {}
        if request["execute"] == "human-monitor-command":
            result = f"{arguments['command-line']} of {arguments['cpu-index']}\r\n"
        elif request["execute"] == "pmemsave":
            Path(arguments["filename"]).write_bytes(bytes(arguments["size"]))
        self.monitor({"event": "NOTHING", "data": {}})
        self.monitor({"return": result, "id": request["id"]})

    def say(self, *lines: str) -> None:
        self.ends["control"].sendall("".join(f"{line}\n" for line in lines).encode())

    def print(self, text: str) -> None:
        self.ends["console"].sendall(text.encode())

    def save(self, files: dict[str, bytes], *, cut: bool = False) -> None:
        """Write the archive to the disk as the guest does."""
        assert self.disk is not None
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in sorted((_HERE / "recording").rglob("*")):
                archive.add(path, f"./recording/{path.relative_to(_HERE / 'recording')}")
            for name, content in {**files, "zz-end": b""}.items():
                about = tarfile.TarInfo(f"./{name}")
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
        data = packed.getvalue()
        with open(self.disk, "r+b") as stream:
            stream.write(data[: len(data) // 2] if cut else data)

    # -- behaviours -------------------------------------------------------------------------

    def done(self) -> None:
        self.ends["stdout"].sendall(b"out\n")
        self.ends["stderr"].sendall(b"err\n")
        self.say("hello", "start", "status 7")
        self.save({"dmesg": b"log\n", "meminfo": b"HighTotal: 1 kB\n", "recorder": b""})
        self.say("saved")
        self.serve(60)

    def well(self) -> None:
        self.say("hello", "start", "status 0")
        self.save(
            {
                "dmesg": b"log\n",
                "cmdline": b"console=ttyS0\n",
                "recorder": b"highmem record: 90 events in /lab/out/recording\n",
            }
        )
        self.say("saved")
        self.serve(60)

    def cut(self) -> None:
        self.say("hello", "start", "status 0")
        self.save({"dmesg": b"x" * 50000}, cut=True)
        self.say("saved")
        self.serve(60)

    def image(self) -> None:
        self.say("hello", "start", "image")
        self.serve(0.4)
        self.print("[    1.0] highmem-lab: image\n")
        self.serve(0.4)
        self.say("image last")
        self.serve(0.4)
        self.say("status 0")
        self.save({"dmesg": b"log\n"})
        self.say("saved")
        self.serve(60)

    def panic(self) -> None:
        self.say("hello", "start")
        self.print("[    2.5] Kernel panic - not syncing: \x1b[31mfor once\r\n")
        self.print("[    2.6] Rebooting in 1 seconds..\n")

    def obeys(self) -> None:
        """Ends when it is told to."""
        self.say("hello", "start")
        self.serve(60)
        self.say("status 137")
        self.save({"dmesg": b"killed\n"})
        self.say("saved")
        self.serve(60)

    def hung(self) -> None:
        self.say("hello", "start")
        self.serve(60)
        self.say("status hung")
        self.save({"dmesg": b"task blocked\n"})
        self.say("saved")
        self.serve(60)

    def lost(self) -> None:
        self.say("hello", "start", "status lost")
        self.save({"dmesg": b"no memory\n"})
        self.say("saved")
        self.serve(60)

    def slow(self) -> None:
        """Its job ends in time; saving takes longer than the time that is left."""
        self.say("hello", "start", "status 3")
        time.sleep(2.5)
        self.save({"dmesg": b"late\n"})
        self.say("saved")
        self.serve(60)

    def hang(self) -> None:
        self.say("hello", "start")
        time.sleep(600)

    def silent(self) -> None:
        time.sleep(600)

    def dies(self) -> None:
        self.say("hello", "start")
        print("qemu: a part of it fell off", file=sys.stderr)
        sys.exit(1)

    def nospace(self) -> None:
        self.say("hello", "start", "status 0")
        data = {"nospace": True, "action": "stop", "reason": "No space left on device"}
        self.monitor({"event": "BLOCK_IO_ERROR", "data": data})
        time.sleep(600)

    def unfit(self) -> None:
        self.say("hello", "start", "status 0")
        self.say("error what is brought back does not fit: tar: No space left on device")
        time.sleep(600)

    def nodriver(self) -> None:
        self.print("[    1.1] highmem-lab: error insmod virtio_pci.ko: bad\r\n")
        time.sleep(600)

    def floods(self) -> None:
        self.say("hello", "start")
        for _ in range(600):
            self.print("flood " * 6000)
        self.say("status 0")
        self.save({"dmesg": b"log\n"})
        self.say("saved")
        self.serve(60)

    def children(self) -> None:
        """Has a child that would outlive it."""
        if os.fork() == 0:
            (_HERE / "child").write_text(str(os.getpid()))
            time.sleep(600)
        self.hang()


def main() -> None:
    (_HERE / "pid").write_text(str(os.getpid()))
    with open(_HERE / "arguments", "w", encoding="utf-8") as stream:
        stream.write("\n".join(sys.argv[1:]))
    behaviour = (_HERE / "behaviour").read_text()
    if behaviour == "refuses":
        print("qemu: no such thing as that", file=sys.stderr)
        sys.exit(1)
    if behaviour.startswith("kvm-"):
        what, behaviour = behaviour, "done"
        if "kvm" in sys.argv:
            if what == "kvm-dies":
                sys.exit("qemu: error: failed to set MSR 0x10a")
            behaviour = "silent"
    fake = Fake(sys.argv[1:])
    fake.greet()
    getattr(fake, behaviour)()


if __name__ == "__main__":
    main()
