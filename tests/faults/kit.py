"""What the fault scripts have in common: a Ravelin in a scratch folder, an origin, load, numbers.

Each script takes the binary from $RAVELIN, or else target/release/ravelin of this checkout (`cargo build --release`).
Only loopback is used, or a network namespace of the script's own. Needs python3, openssl, curl; some need wrk, h2load.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = "www.example.org"
HTTPS, HTTP, ADMIN, ORIGIN = 24443, 24080, 24145, 24800


def say(text):
    print(text, flush=True)


def must(holds, text):
    """A bar of the scenario."""
    say(f"{'ok  ' if holds else 'FAIL'} {text}")
    if not holds:
        must.failed = True


must.failed = False


def done():
    sys.exit(1 if must.failed else 0)


def binary():
    path = pathlib.Path(os.environ.get("RAVELIN", ROOT / "target/release/ravelin"))
    if not path.exists():
        sys.exit(f"{path} is not there: cargo build --release, or set RAVELIN")
    return str(path)


def within(seconds, question, every=0.005):
    """Asks until the answer is true; it, or None. Also how long that took."""
    began = time.monotonic()
    while True:
        answer = question()
        took = time.monotonic() - began
        if answer:
            return answer, took
        if took > seconds:
            return None, took
        time.sleep(every)


def connects(port, address="127.0.0.1"):
    try:
        socket.create_connection((address, port), timeout=1).close()
        return True
    except OSError:
        return False


def quantile(numbers, share):
    numbers = sorted(numbers)
    return numbers[min(len(numbers) - 1, int(len(numbers) * share))] if numbers else float("nan")


class Ravelin:
    """A Ravelin in a scratch folder."""

    def __init__(self, upstream=f"http://127.0.0.1:{ORIGIN}", tables="", site="", log="access.log", folder=None):
        self.scratch = None if folder else tempfile.TemporaryDirectory(prefix="ravelin-faults-", ignore_cleanup_errors=True)
        self.folder = pathlib.Path(folder or self.scratch.name)
        self.log_file = self.folder / log
        self.process = None
        self.upstream, self.tables, self.site = upstream, tables, site
        self.issue()
        self.write()

    def issue(self, days=30):
        """A new self-signed certificate."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days),
             "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
             "-keyout", self.folder / "site.key", "-out", self.folder / "site.pem"],
            check=True, capture_output=True)

    def write(self, more=""):
        (self.folder / "ravelin.toml").write_text(
            f'[[listen]]\nurl = "https://127.0.0.1:{HTTPS}"\ncertificates = [{{ chain = "site.pem", key = "site.key" }}]\n'
            f'[[listen]]\nurl = "http://127.0.0.1:{HTTP}"\nplain = "serve"\n[admin]\nlisten = "127.0.0.1:{ADMIN}"\n'
            f'[log]\nfile = "{self.log_file}"\n{self.tables}\n'
            f'[[site]]\nhosts = ["{HOST}"]\nupstream = "{self.upstream}"\npreset = "typo3"\n{self.site}\n{more}\n')

    def start(self, environment=None, before=()):
        """Starts it; how long it took until it listened, in seconds."""
        self.errors = open(self.folder / "stderr", "ab")
        self.process = subprocess.Popen(
            [*before, binary(), "run", "--config", str(self.folder / "ravelin.toml")],
            stderr=self.errors, env={**os.environ, "NO_COLOR": "1", **(environment or {})})
        up, took = within(15, lambda: self.process.poll() is not None or connects(HTTP), 0.001)
        if not up or self.process.poll() is not None:
            sys.exit(f"it does not start:\n{self.said()}")
        return took

    def hear(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGKILL, seconds=90):
        """Ends it; its exit code and how long that took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(seconds), time.monotonic() - began

    def said(self):
        return (self.folder / "stderr").read_text()

    def metric(self, *parts):
        text = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=10).read().decode()
        lines = [line for line in text.splitlines() if not line.startswith("#") and all(part in line for part in parts)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def memory(self, key="Pss"):
        """KiB."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1])

    def cpu(self):
        """Seconds so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.scratch:
            self.scratch.cleanup()


def log_lines(*files):
    """All lines of JSON logs; a line that is none ends the script."""
    return [json.loads(line) for file in files for line in pathlib.Path(file).read_text().splitlines()]


def wrk(target="/", seconds=5, connections=16, tls=False, header=None):
    """Starts wrk."""
    base = f"https://127.0.0.1:{HTTPS}" if tls else f"http://127.0.0.1:{HTTP}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s", "-H", f"Host: {HOST}"]
    if header:
        command += ["-H", header]
    return subprocess.Popen([*command, base + target], stdout=subprocess.PIPE, text=True)


def wrk_result(process):
    """Requests, errors of any kind, p50 and p99 in ms."""
    text = process.communicate()[0]
    find = lambda pattern: re.search(pattern, text)
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    times = {}
    for share in ("50", "99"):
        found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)", text, re.M)
        times[share] = float(found[1]) * units[found[2]] if found else float("nan")
    errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))
    wrong = find(r"Non-2xx or 3xx responses: (\d+)")
    requests = int(find(r"(\d+) requests in")[1])
    return requests, errors + (int(wrong[1]) if wrong else 0), times["50"], times["99"]


def client_tls(alpn=("http/1.1",)):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context


def ask(target="/", port=HTTP, timeout=30, address="127.0.0.1", client=None):
    """One GET on a connection of its own, for a client elsewhere if it is named: status (0: none), seconds, body."""
    visitor = f"X-Forwarded-For: {client}\r\n" if client else ""
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=timeout) as wire:
            wire.settimeout(timeout)
            wire.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{visitor}Connection: close\r\n\r\n".encode())
            text = b""
            while piece := wire.recv(65536):
                text += piece
        head, _, body = text.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head else 0, time.monotonic() - began, body.decode(errors="replace")
    except OSError:
        return 0, time.monotonic() - began, ""


# --- the origin: `kit.py origin ADDRESS PORT NAME` --------------------------------------------------------

async def serve(reader, writer, name):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            line = head.split(b"\r\n", 1)[0].decode()
            lower = head.lower()
            if found := re.search(rb"\r\ncontent-length: *(\d+)", lower):
                rest = int(found[1])
                while rest:
                    piece = await reader.read(min(rest, 1 << 20))
                    if not piece:
                        return
                    rest -= len(piece)
            if found := re.search(r"/slow/(\d+)", line):
                await asyncio.sleep(int(found[1]) / 1000)
            if "/never" in line:
                await asyncio.sleep(3600)
            body = name.encode() if "/who" in line else b"x" * 1024
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    writer.close()


async def origin_main(address, port, name):
    server = await asyncio.start_server(lambda r, w: serve(r, w, name), address, port, backlog=4096, limit=1 << 20)
    await server.serve_forever()


@contextlib.contextmanager
def origin(address="127.0.0.1", port=ORIGIN, name="origin", before=()):
    process = subprocess.Popen([*before, sys.executable, __file__, "origin", address, str(port), name])
    try:
        if not before:
            up, _ = within(10, lambda: connects(port, address))
            assert up, "the origin does not start"
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__" and sys.argv[1:2] == ["origin"]:
    asyncio.run(origin_main(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
