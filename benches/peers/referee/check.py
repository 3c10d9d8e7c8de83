"""Does a peer really do the job? Asked before every cell: a proxy that skips work would look fast."""

import subprocess

from peers import HOST


class NotTheJob(Exception):
    """What a peer does not do."""


def ask(port, path, *flags):
    """One request by curl: protocol version, status, fields (lower-case names, in order) and body."""
    out = subprocess.run(
        ["curl", "-sk", "--max-time", "5", "--resolve", f"{HOST}:{port}:127.0.0.1", "-i", *flags,
         f"https://{HOST}:{port}{path}"],
        capture_output=True, text=True)
    head, _, body = out.stdout.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    words = first.split()
    if len(words) < 2:
        raise NotTheJob(f"no answer to {path} ({' '.join(flags)}): curl said {out.returncode}")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return words[0], int(words[1]), fields, body


def check(peer):
    """Raises NotTheJob."""
    for flag, protocol in (("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")):
        version, status, fields, body = ask(peer.port, "/echo", flag, "--tlsv1.3", "-H", "X-Forwarded-For: 192.0.2.1")
        need(version == protocol, f"{flag} was answered in {version}")
        need(status == 200, f"GET was answered with {status} over {version}")
        hardened(peer, fields)
        forwarded(peer, body)
    _, status, fields, _ = ask(peer.port, "/deny/x", "--http1.1")
    need(status in peer.denied, f"the denied prefix was answered with {status}")
    if peer.forbidden:
        _, status, fields, _ = ask(peer.port, "/1k", "--http1.1", "-X", "DELETE")
        need(status in peer.forbidden, f"DELETE was answered with {status}")
        hardened(peer, fields)


def hardened(peer, fields):
    for name, value in peer.job.headers.items():
        seen = [v for n, v in fields if n == name.lower()]
        # The value may differ by the hardening proxy's own knowledge of the answer; its presence may not.
        need(len(seen) == 1 or (peer.name == "ravelin" and name.startswith("Cross-Origin") and len(seen) <= 1),
             f"{name} is there {len(seen)} times, not once")
    names = [n for n, _ in fields]
    need("x-powered-by" not in names, "X-Powered-By leaks")
    server = [v for n, v in fields if n == "server"]
    need(not server or peer.server_stays, f"Server leaks: {server}")


def forwarded(peer, echo):
    lines = [line.lower() for line in echo.split("\n")]
    for name in peer.forwards:
        need(any(line.startswith(name + ":") for line in lines), f"{name} does not reach the backend")


def need(truth, otherwise):
    if not truth:
        raise NotTheJob(otherwise)


def log_lines(peer):
    """How many lines the access log has."""
    with open(peer.log, "rb") as log:
        return sum(piece.count(b"\n") for piece in iter(lambda: log.read(1 << 20), b""))
