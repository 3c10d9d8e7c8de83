"""The goals, each beside what this run measured: met, not met, or not measured."""

from statistics import median

from table import best_other, ratios, row, spread

BEST = "best peer"

# kind of work, what is compared, with whom, at most. Handshakes: 2.6 times as many per CPU second is 1/2.6 of the CPU.
GOALS = [
    ("a", "price", "nginx", 0.65), ("a", "price", BEST, 0.65),
    ("b", "price", "nginx", 0.60), ("b", "price", "h2o", 0.80),
    ("c", "price", "nginx", 0.50), ("c", "price", BEST, 0.50),
    ("d", "price", "nginx", 1 / 2.6), ("d", "price", "pingora", 1 / 1.8), ("d", "price", "envoy", 1 / 1.8),
    ("e", "price", "nginx", 0.55), ("e", "price", "envoy", 0.70),
    ("f", "price", "nginx", 0.50), ("f", "price", "envoy", 0.70),
    ("lat", "p50", "nginx", 0.90), ("lat", "p99", "nginx", 0.60),
    ("lat", "p50", BEST, 0.90), ("lat", "p99", BEST, 0.60),
]
WORDS = {
    "a": "h1 TLS 1 KiB", "b": "h2 TLS 1 KiB", "c": "h1 TLS 16 KiB", "d": "full TLS 1.3 handshakes",
    "e": "10 MiB download", "f": "10 MiB upload", "lat": "at 3,000 requests/s",
}
# What Ravelin alone has to reach: KiB per idle connection, milliseconds to listening, MiB when idle.
IDLE, START, RSS = 6.0, 30.0, 12.0


def table(results, levels):
    head = ["work", "compared with", "goal", "measured", ""]
    lines = [row(head), row(["-"] * len(head))]
    lines += [ratio(results[goal[0]], *goal) for goal in GOALS if goal[0] in results]
    lines += idle(results["g"], levels) if "g" in results else []
    lines += start(results["h"]) if "h" in results else []
    kinds = dict.fromkeys([*WORDS, "g", "h"])
    missing = [kind for kind in kinds if kind not in results]
    lines += ["", f"Kinds of work that are not in this run: {', '.join(missing)}."] if missing else []
    return "\n".join(["### Reach", "", *lines])


def ratio(cells, key, value, other, most):
    peer = best_other(cells, value) if other == BEST else other
    seen = ratios(cells, "ravelin", peer, value) if peer else []
    what = "CPU" if value == "price" else value
    named = f"{other} ({peer})" if other == BEST and peer else other
    verdict = judged(median(seen) if seen else None, most)
    return row([f"{key} {WORDS[key]}, {what}", named, f"≤ {most:.2f}", spread(seen), verdict])


def idle(results, levels):
    most = max(levels)
    sizes = {name: result["levels"][most] / 1024 for name, result in results.items() if "levels" in result}
    others = {name: size for name, size in sizes.items() if name not in ("ravelin", "other")}
    best = f" (best peer: {min(others, key=others.get)} {min(others.values()):.1f})" if others else ""
    seen = sizes.get("ravelin")
    return [row([f"g idle TLS connection, of {most:,}", "itself" + best, f"≤ {IDLE:g} KiB", number(seen, "KiB"), judged(seen, IDLE)])]


def start(results):
    runs = [run for run in results.get("ravelin", []) if "ms" in run]
    ms = median(run["ms"] for run in runs) if runs else None
    rss = median(run["rss"] for run in runs) / 2**20 if runs else None
    return [row(["h start to listening", "itself", f"≤ {START:g} ms", number(ms, "ms"), judged(ms, START)]),
            row(["h idle RSS", "itself", f"≤ {RSS:g} MiB", number(rss, "MiB"), judged(rss, RSS)])]


def number(seen, unit):
    return "–" if seen is None else f"{seen:.1f} {unit}"


def judged(seen, most):
    if seen is None:
        return "not measured"
    return "met" if seen <= most else "**not met**"
