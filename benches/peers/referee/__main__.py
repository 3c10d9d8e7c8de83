"""The referee: Ravelin beside its peers, the same job, one interleaved run."""

import argparse
import json
import os
import platform
import re
import signal
import socket
import sys
import tempfile
import time

import grow
import reach
import table
from check import NotTheJob, ask
from peers import ALL, DEFAULT, HEADERS, RIVALS, Job, Ravelin
from processes import CPUS, FREE, LOAD_CPU, PROXY_CPU, Group, Quota, end, raise_limit
from works import WORKS, Backend, Bench, idle, listening, start_up

USUAL = ["a", "b", "c", "d", "d+", "dr", "e", "f", "lat", "g", "h"]
EVERYTHING = [*USUAL, "grow"]


def options():
    parser = argparse.ArgumentParser(prog="benches/peers/run", description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, help="interleaved rounds (default 3; 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of a window (default 5; 2 with --quick)")
    parser.add_argument("--only", help=f"kinds of work, of {','.join(EVERYTHING)} (default all but grow)")
    parser.add_argument("--peers", help=f"of {','.join(ALL)} (default {','.join(DEFAULT)}; if they are here, h2o in b and "
                                        "pingora in d too)")
    parser.add_argument("--grow", help=f"cells of grow, of {','.join(grow.CELLS)} (default all)")
    parser.add_argument("--other", default="", help="another build of Ravelin for the peer `other`")
    parser.add_argument("--base", default="nginx", help="the peer that ratios are to (default nginx)")
    parser.add_argument("--idle", help="numbers of idle connections for g (default 2000,5000; 1000 with --quick)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, roughly where are we")
    parser.add_argument("--no-quota", action="store_true", help="never put the proxy under a CPU quota")
    parser.add_argument("--first", action="store_true", help="take the CPUs before everybody else: for machines that are "
                                                             "shared (cgroup weight; be short)")
    parser.add_argument("--ports", type=int, default=20443, help="the first port to try (two runs at once need two)")
    parser.add_argument("--keep", action="store_true", help="keep configurations and logs")
    for hidden in ("--load", "--out", "--ravelin", "--caddy", "--envoy", "--pingora"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.seconds = given.seconds or (2.0 if given.quick else 5.0)
    given.idle = [int(n) for n in (given.idle or ("1000" if given.quick else "2000,5000")).split(",")]
    given.only = chosen(parser, given.only, EVERYTHING, USUAL)
    given.rivals = {} if given.peers else RIVALS
    given.peers = chosen(parser, given.peers, ALL, DEFAULT)
    given.peers += sorted({name for key in given.only for name in given.rivals.get(key, [])} - set(given.peers))
    given.grow = chosen(parser, given.grow, grow.CELLS, grow.CELLS)
    return given


def chosen(parser, text, known, default):
    names = text.split(",") if text else list(default)
    for name in names:
        if name not in known:
            parser.error(f"{name}: none of {','.join(known)}")
    return names


def free_ports(count, begin):
    """Ports below the ephemeral range, so that no outgoing connection takes them."""
    ports = []
    for port in range(begin, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise SystemExit("no free ports")


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def present(given, job, ports):
    """The peers that are here; the others are named and left out."""
    peers, missing = {}, []
    for name, port in zip(given.peers, ports):
        peer = ALL[name](job, port)
        if peer.path and os.access(peer.path, os.X_OK):
            peers[name] = peer
        else:
            missing.append(name)
    return peers, missing


def learn_headers(peers):
    """The peers add, byte for byte, what Ravelin adds: its own preset is the job."""
    ravelin = peers.get("ravelin")
    if not ravelin:
        return "the referee's own list (Ravelin is not in this run)"
    process = ravelin.start(None)
    try:
        listening(ravelin, process)
        _, _, fields, _ = ask(ravelin.port, "/1k", "--http1.1")
    except (RuntimeError, NotTheJob) as fault:
        return f"the referee's own list (Ravelin: {fault})"
    finally:
        end(process)
    wanted = {name.lower(): name for name in (*HEADERS, "Origin-Agent-Cluster", "Cross-Origin-Opener-Policy",
                                              "X-Permitted-Cross-Domain-Policies", "X-DNS-Prefetch-Control")}
    ravelin.job.headers = {wanted[name]: value for name, value in fields if name in wanted}
    return "as Ravelin's preset sets them"


def machine():
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    return f"{cpu.group(1) if cpu else platform.machine()}, {len(CPUS)} CPUs, kernel {platform.release()}"


def run_steady(bench, work, peers, given, results):
    cells = {name: [None] * given.rounds for name in peers}
    results[work.key] = cells
    names = list(peers)
    for round_ in range(given.rounds):
        order = names[round_ % len(names):] + names[:round_ % len(names)]
        for name in order:
            cell = bench.cell(work, peers[name])
            cells[name][round_] = cell
            told = f"{cell['price']:.2f} {cell['complaints']}" if "price" in cell else cell["fault"]
            say(f"  {work.key} round {round_ + 1} {name}: {told}")


def main():
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    most = raise_limit() - 500
    if max(given.idle) > most:
        say(f"the limit on open files allows {most} connections in g")
        given.idle = sorted({min(level, most) for level in given.idle})
    os.makedirs(given.out, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(prefix="referee-", dir=given.out)
    programs = {name: getattr(given, name) for name in ("ravelin", "caddy", "envoy", "pingora", "other")}
    backend_port, *ports = free_ports(1 + len(given.peers), given.ports)
    job = Job(scratch.name, backend_port, programs)
    os.chmod(scratch.name, 0o755)
    peers, missing = present(given, job, ports)
    for name in missing:
        say(f"{name} is not here: left out")
    quota, why_not = (None, "switched off") if given.no_quota else Quota.make("quota", given.first)
    if given.first:
        group, _ = Group.make("free", True)
        FREE[:] = table.FIRST[:] = [group] if group else []
    backend = Backend(given.load, backend_port)
    bench = Bench(given.load, backend, quota, given.seconds)
    begin, results = time.monotonic(), {}
    try:
        origin = learn_headers(peers)
        facts = about(given, peers, missing, job, origin, quota, why_not)
        print(facts, flush=True)
        for key in given.only:
            print("\n" + measure(key, bench, peers, given, results), flush=True)
        if given.only != ["grow"] and "ravelin" in peers:
            print("\n" + reach.table(results, given.idle), flush=True)
    finally:
        end(backend.process)
        for group in filter(None, [quota, *FREE]):
            group.remove()
        if given.keep:
            say(f"kept: {scratch.name}")
            scratch._finalizer.detach()
        write(given, peers, job, results, time.monotonic() - begin)
    print(f"\n{(time.monotonic() - begin) / 60:.1f} minutes; raw numbers in {os.path.relpath(given.out)}/last.json")


def measure(key, bench, peers, given, results):
    rivals = {name for names in given.rivals.values() for name in names}
    peers = {name: peer for name, peer in peers.items() if name not in rivals or name in given.rivals.get(key, [])}
    if key == "grow":
        port = free_ports(1, given.ports + 50)[0]
        results["grow"] = grow.run(bench, peers["ravelin"], port, given.grow, given.rounds, say) if "ravelin" in peers else {}
        return grow.table(results["grow"])
    if key == "g":
        results["g"] = {name: idle(bench, peer, given.idle) for name, peer in peers.items()}
        return table.memory_table(results["g"], given.idle)
    if key == "h":
        runs = results["h"] = {name: [] for name in peers}
        for _ in range(max(3, given.rounds)):
            for name, peer in peers.items():
                runs[name].append(start_up(peer))
        return table.start_table(runs)
    run_steady(bench, WORKS[key], peers, given, results)
    return table.steady(WORKS[key], results[key], given.base if given.base in peers else next(iter(peers)))


def about(given, peers, missing, job, origin, quota, why_not):
    versions = ", ".join(f"{name} {peer.version()}" for name, peer in peers.items())
    limit = "half a CPU (cgroup, 10 of every 20 ms) in a b c e f, none in the others" if quota else f"none ({why_not})"
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M')}, {machine()}",
        f"- {versions}" + (f"; not here: {', '.join(missing)}" if missing else ""),
        f"- proxy on CPU {PROXY_CPU}, generator and backend on CPU {LOAD_CPU}"
        + ("" if PROXY_CPU != LOAD_CPU else " (one CPU only: the figures are worth little)"),
        f"- CPU quota of the proxy: {limit}" + ("; all that is measured comes before everything else here" if FREE else ""),
        f"- {given.rounds} interleaved round(s), windows of {given.seconds:g} s; CPU is the process tree's own; lower is better",
        f"- access log: JSON, one line per request, to a file, for every peer; {len(job.headers)} security headers, {origin}",
    ]
    lines += [f"- {name}: {peer.notes}" for name, peer in peers.items() if peer.notes]
    return "\n".join(lines)


def write(given, peers, job, results, seconds):
    record = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine(), "seconds": seconds,
        "rounds": given.rounds, "window": given.seconds, "headers": job.headers,
        "peers": {name: peer.version() for name, peer in peers.items()}, "results": results,
    }
    with open(f"{given.out}/last.json", "w") as file:
        json.dump(record, file, indent=1)


main()
