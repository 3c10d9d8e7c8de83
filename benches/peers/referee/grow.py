"""How the price of a request grows with the configuration and with idle connections: Ravelin alone, each cell as a
ratio to the plain one in the same round."""

import subprocess
import time
from statistics import median

import table as tables
from check import NotTheJob, check, log_lines
from peers import HOST, Ravelin
from processes import LOAD_CPU, end, memory, start
from works import WORKS, judge, listening, no

RULES = 1000


def sites(count):
    """So many plain sites, of which the one that is asked is the last."""
    return "".join(f"""
[[site]]
hosts = ["www{n}.example.net"]
upstream = "http://127.0.0.1:{20000 + n % 10000}"
preset = "typo3"
""" for n in range(count - 1))


def rules(count, rule):
    return "[site.headers]\n" + "".join(f"X-Rule-{n} {rule}\n" for n in range(count))


def few(count):
    """Half name lines that are never sent, half are for another status."""
    return rules(count // 2, "= false") + "".join(
        f'X-Other-{n} = {{ set = "1", status = "404" }}\n' for n in range(count - count // 2))


def paths(count):
    return "".join(f"""
[[site.path]]
path = "/section-{n}/page"
body_size = "{n + 1} KiB"
""" for n in range(count))


# name: (in words, text before the site, text in the site, idle connections)
CELLS = {
    "plain": ("1 site, the preset alone", "", "", 0),
    "sites-100": ("100 sites", sites(100), "", 0),
    "sites-10000": ("10,000 sites", sites(10_000), "", 0),
    "few-10": ("10 header rules, none matches", "", few(10), 0),
    "few-1000": (f"{RULES:,} header rules, none matches", "", few(RULES), 0),
    "all-10": ("10 header rules, each adds a line", "", rules(10, '= "1"'), 0),
    "all-1000": (f"{RULES:,} header rules, each adds a line", "", rules(RULES, '= "1"'), 0),
    "paths-1000": ("1,000 paths, none matches", "", paths(1_000), 0),
    "idle-10000": ("10,000 idle TLS connections", "", "", 10_000),
}


def variant(plain, name, port):
    """Ravelin as in the other kinds of work, with more of something."""
    peer = Ravelin(plain.job, port)
    peer.path = plain.path
    peer.home = f"{plain.job.directory}/grow-{name}"
    peer.log = f"{peer.home}/access.log"
    _, peer.before, peer.inside, peer.idle = CELLS[name]
    return peer


def run(bench, plain, port, names, rounds, say):
    names = ["plain", *[name for name in names if name != "plain"]]
    cells = {name: [None] * rounds for name in names}
    for round_ in range(rounds):
        order = names[round_ % len(names):] + names[:round_ % len(names)]
        for name in order:
            result = cell(bench, variant(plain, name, port))
            cells[name][round_] = result
            told = f"{result['price']:.2f} {result['complaints']}" if "price" in result else result["fault"]
            say(f"  grow round {round_ + 1} {name}: {told}")
    return cells


def cell(bench, peer):
    """Like every other cell, with idle connections and what there was to see before the load."""
    work, client = WORKS["a"], None
    begin = time.monotonic()
    # Idle connections are opened without the quota: they are not what is measured.
    process = peer.start(None if peer.idle else bench.quota)
    try:
        listening(peer, process)
        seen = {"ms": (time.monotonic() - begin) * 1000}
        check(peer)
        if peer.idle:
            client = open_idle(bench, peer)
            if bench.quota:
                bench.quota.take(process.pid)
        seen["pss"] = memory(process.pid)["pss"]
        before = log_lines(peer)
        result = bench.window(work, peer, process)
    except NotTheJob as fault:
        return {"fault": no(peer, process, fault)}
    except RuntimeError as fault:
        return {"fault": str(fault)}
    finally:
        if client:
            end(client)
        end(process)
    result["lines"] = log_lines(peer) - before
    return {**judge(work, result), **seen}


def open_idle(bench, peer):
    client = start([bench.load, "idle", "--to", f"127.0.0.1:{peer.port}", "--host", HOST, "--levels", str(peer.idle)],
                   LOAD_CPU, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not client.stdout.readline():
        end(client)
        raise RuntimeError(f"could not open {peer.idle} connections: {client.stderr.read().decode()[-200:]}")
    return client


def table(cells):
    head = ["what there is", "CPU µs/request", "vs 1 site (paired)", "PSS MiB before the load", "ms to listening",
            "rounds: other CPU use"]
    lines, notes = [tables.row(head), tables.row(["-"] * len(head))], []
    for name, cells_of in cells.items():
        fine = tables.good(cells_of)
        notes += tables.remarks(name, cells_of)
        if not fine:
            lines.append(tables.row([CELLS[name][0], *["–"] * (len(head) - 1)]))
            continue
        lines.append(tables.row([
            CELLS[name][0], f"{median(c['price'] for c in fine):.1f}",
            tables.spread(tables.ratios(cells, name, "plain")),
            f"{median(c['pss'] for c in fine) / 2**20:.1f}", f"{median(c['ms'] for c in fine):.0f}",
            f"{len(fine)}: " + ", ".join(f"{max(0.0, c['foreign']):.2f}" for c in fine)]))
    return "\n".join(["### (grow) h1 TLS 1 KiB, 64 connections, with more of everything", "", *lines, "",
                      *tables.disturbed(cells), *notes])
