"""The kinds of work, and one cell of the table: one peer doing one kind of work once."""

import json
import math
import signal
import socket
import subprocess
import threading
import time

from check import NotTheJob, check, log_lines
from peers import HOST
from processes import LOAD_CPU, PROXY_CPU, Used, end, memory, start, tree

SETTLE = 0.5  # seconds of load before the window opens
TEN_MIB = 10 * 1024 * 1024


class Work:
    """A kind of work that is measured as CPU per unit over a window of steady load."""

    def __init__(self, key, title, unit, command, quota=True, latency=False):
        self.key, self.title, self.unit, self.quota, self.latency = key, title, unit, quota, latency
        self.command = command


def wrk(path):
    return lambda load, port, seconds: [
        "wrk", "-t1", "-c64", f"-d{math.ceil(seconds) + 1}s", "-H", f"Host: {HOST}", f"https://127.0.0.1:{port}{path}"]


def h2load(load, port, seconds):
    return ["h2load", "-t1", "-c16", "-m16", "-D", f"{math.ceil(seconds * 1000)}ms", f"--connect-to=127.0.0.1:{port}",
            f"https://{HOST}:{port}/1k"]


def own(command, *options):
    return lambda load, port, seconds: [
        load, command, "--to", f"127.0.0.1:{port}", "--host", HOST, "--seconds", f"{seconds:.1f}", *options]


WORKS = {work.key: work for work in (
    Work("a", "h1 TLS 1 KiB, 64 connections", "request", wrk("/1k")),
    Work("b", "h2 TLS 1 KiB, 16 connections × 16 streams", "request", h2load),
    Work("c", "h1 TLS 16 KiB, 64 connections", "request", wrk("/16k")),
    Work("d", "full TLS 1.3 handshakes (X25519), 1 request each", "request",
         own("handshakes", "--connections", "32"), quota=False),
    Work("d+", "full TLS 1.3 handshakes with X25519MLKEM768, 1 request each", "request",
         own("handshakes", "--connections", "32", "--group", "mlkem768"), quota=False),
    Work("dr", "resumed TLS 1.3 handshakes (tickets, X25519), 1 request each", "request",
         own("handshakes", "--connections", "32", "--resume", "yes"), quota=False),
    Work("e", "10 MiB downloads, 8 connections", "GiB", own("transfer", "--connections", "8", "--path", "/10m")),
    Work("f", "10 MiB uploads, 8 connections", "GiB",
         own("transfer", "--connections", "8", "--path", "/upload", "--upload", str(TEN_MIB))),
    Work("lat", "h1 TLS 1 KiB at 3,000 requests/s (random arrivals), 64 connections", "request",
         own("pace", "--rate", "3000", "--connections", "64", "--warm", str(SETTLE)), quota=False, latency=True),
)}


class Backend:
    """The backend process, and its counters."""

    def __init__(self, load, port):
        self.process = start([load, "backend", "--listen", f"127.0.0.1:{port}"], LOAD_CPU,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.line()

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            raise RuntimeError("the backend is gone")
        return json.loads(text)

    def count(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.line()


class Bench:
    """What every cell needs: the generator, the backend, the quota, the length of a window."""

    def __init__(self, load, backend, quota, seconds):
        self.load, self.backend, self.quota, self.seconds = load, backend, quota, seconds

    def cell(self, work, peer):
        """One measurement. Whatever goes wrong is part of the result, never of the next cell."""
        process = peer.start(self.quota if work.quota else None)
        try:
            listening(peer, process)
            check(peer)
            before = log_lines(peer)
            result = self.window(work, peer, process)
        except NotTheJob as fault:
            return {"fault": no(peer, process, fault)}
        except RuntimeError as fault:
            return {"fault": str(fault)}
        finally:
            end(process)
        result["lines"] = log_lines(peer) - before
        return judge(work, result)

    def window(self, work, peer, process):
        """Load, settle, weigh, wait, weigh."""
        command = work.command(self.load, peer.port, SETTLE + self.seconds + 0.4)
        generator = start(command, LOAD_CPU, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        heard = []
        ear = threading.Thread(target=lambda: heard.append(generator.stdout.read()), daemon=True)
        ear.start()
        try:
            time.sleep(SETTLE)
            used, count = Used(process.pid), self.backend.count()
            slices = [count]
            until = used.at + self.seconds
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(0.5, left))
                slices.append(self.backend.count())
            after = Used(process.pid)
            last = slices[-1]
            if command[0] == "wrk":
                generator.send_signal(signal.SIGINT)  # wrk counts whole seconds only
            try:
                generator.wait(15)
            except subprocess.TimeoutExpired:
                raise RuntimeError("the generator did not end") from None
        finally:
            end(generator)
        ear.join(2)
        result = after.since(used)
        result["requests"] = last["requests"] - count["requests"]
        result["bytes"] = last["bytes"] - count["bytes"]
        result["stalls"] = stalls(slices)
        result["generator"] = (heard or [b""])[0].decode(errors="replace")
        return result


def stalls(slices):
    """How many whole seconds passed without a byte or a request."""
    pairs = zip(slices, slices[2:])
    return sum(a["bytes"] == b["bytes"] and a["requests"] == b["requests"] for a, b in pairs)


def judge(work, result):
    """Adds the price per unit and what the generator complained about."""
    units = result["requests"] if work.unit == "request" else result["bytes"] / 2**30
    if not units:
        return {"fault": f"no work was done: {why(result['generator'])}"}
    result["price"] = result["cpu_ns"] / 1000 / units if work.unit == "request" else result["cpu_ns"] / 1e9 / units
    result["rate"] = units / result["seconds"]
    said = result.pop("generator")
    result["complaints"] = complaints(said)
    if said.startswith("{"):
        numbers = json.loads(said)
        if work.latency:
            result["p50"], result["p99"] = numbers["p50_us"], numbers["p99_us"]
        if numbers["refused"] or numbers["faults"]:
            result["complaints"] = f"{numbers['refused']} refused, {numbers['faults']} failed ({numbers['fault']})"
    share = result["cpu_ns"] / 1e9 / result["seconds"]
    if result["load"] > 0.97 and share < 0.45:
        result["complaints"] += f" the generator's CPU was full (the proxy used {share:.0%} of its own)"
    if result["stalls"]:
        result["complaints"] += f" stalled {result['stalls']} s"
    if work.unit == "request" and result["lines"] < 0.9 * result["requests"]:
        result["complaints"] += f" only {result['lines']} log lines for {result['requests']} requests"
    return result


def why(said):
    """The generator's own reason for having done nothing."""
    if said.startswith("{"):
        numbers = json.loads(said)
        return f"{numbers['faults']} attempts failed: {numbers['fault']}"
    return said.strip().split("\n")[-1][:120]


def complaints(said):
    """Errors in the words of wrk and h2load."""
    lines = [line.strip() for line in said.split("\n")]
    wrong = [line for line in lines if line.startswith(("Socket errors", "Non-2xx"))]
    for line in lines:
        if line.startswith("status codes:") and "0 3xx, 0 4xx, 0 5xx" not in line:
            wrong.append(line)
        if line.startswith("requests:") and ("0 failed, 0 errored, 0 timeout" not in line):
            wrong.append(line)
    return "; ".join(wrong)


def listening(peer, process, patience=10.0):
    """Waits until the peer accepts; seconds since it was started, more or less."""
    begin = time.monotonic()
    while time.monotonic() < begin + patience:
        if process.poll() is not None:
            raise RuntimeError(f"ended at start: {last_words(peer)}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", peer.port)) == 0:
                return time.monotonic() - begin
        time.sleep(0.0005)
    raise RuntimeError(f"does not listen after {patience:.0f} s: {last_words(peer)}")


def no(peer, process, fault):
    """Why a peer was not measured."""
    died = f" (it ended: {last_words(peer)})" if process.poll() is not None else ""
    return f"does not do the job: {fault}{died}"


def last_words(peer):
    """The end of what a peer printed."""
    for name in ("stderr", "error.log", "stdout"):
        try:
            with open(f"{peer.home}/{name}") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text:
            return text.split("\n")[-1][-300:]
    return "it said nothing"


def start_up(peer):
    """h: milliseconds to listening, CPU milliseconds, idle memory."""
    begin = time.monotonic()
    process = peer.start(None)
    try:
        listening(peer, process)
        ms = (time.monotonic() - begin) * 1000
        time.sleep(0.3)
        cpu = sum(Used(process.pid).threads.values()) / 1e6
        return {"ms": ms, "cpu_ms": cpu, **memory(process.pid)}
    except RuntimeError as fault:
        return {"fault": str(fault)}
    finally:
        end(process)


def idle(bench, peer, levels):
    """g: memory of idle kept TLS connections."""
    process = peer.start(None)
    client = None
    try:
        listening(peer, process)
        check(peer)
        time.sleep(0.5)
        result = {"idle": memory(process.pid)["pss"], "levels": {}}
        client = start([bench.load, "idle", "--to", f"127.0.0.1:{peer.port}", "--host", HOST,
                        "--levels", ",".join(map(str, levels))],
                       LOAD_CPU, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for level in levels:
            line = client.stdout.readline()
            if not line:
                return {"fault": f"could not open {level} connections: {client.stderr.read().decode()[-200:]}"}
            time.sleep(1.0)
            result["levels"][level] = (memory(process.pid)["pss"] - result["idle"]) / level
            client.stdin.write(b"\n")
            client.stdin.flush()
        return result
    except NotTheJob as fault:
        return {"fault": no(peer, process, fault)}
    except (RuntimeError, BrokenPipeError) as fault:
        return {"fault": str(fault)}
    finally:
        if client:
            end(client)
        end(process)
