"""Numbers to Markdown."""

from statistics import median


def good(cells):
    return [cell for cell in cells if cell and "price" in cell]


def ratios(cells, key, other, value="price"):
    """The ratio of two peers in the same round, for every round in which both worked."""
    pairs = zip(cells.get(key, []), cells.get(other, []))
    return [mine[value] / theirs[value] for mine, theirs in pairs
            if mine and theirs and mine.get(value) and theirs.get(value)]


def spread(numbers):
    """Median, and the range where there is one."""
    if not numbers:
        return "–"
    text = f"{median(numbers):.2f}"
    return text if len(numbers) == 1 else f"{text} ({min(numbers):.2f}–{max(numbers):.2f})"


def best_other(cells, value="price"):
    """The peer, Ravelin aside, with the lowest median."""
    medians = {}
    for name, row in cells.items():
        numbers = [cell[value] for cell in good(row) if cell.get(value)]
        if numbers and name not in ("ravelin", "other"):
            medians[name] = median(numbers)
    return min(medians, key=medians.get) if medians else None


def steady(work, cells, base):
    """The table of one kind of steady work. `cells`: peer → one cell per round."""
    best = best_other(cells)
    price = ("CPU µs/request", "requests/s per core of CPU") if work.unit == "request" else ("CPU s/GiB", "MB/s per core of CPU")
    head = ["proxy", *price, f"vs {base} (paired)", f"vs best peer: {best}", "kernel %", "seen/s", "rounds: other CPU use"]
    if work.latency:
        head[5:5] = ["p50 µs", "p99 µs", f"p50 vs {base}", f"p99 vs {base}"]
    lines, notes = [row(head), row(["-"] * len(head))], []
    for name, cells_of in cells.items():
        fine = good(cells_of)
        notes += remarks(name, cells_of)
        if not fine:
            lines.append(row([name, *["–"] * (len(head) - 1)]))
            continue
        cost = median(cell["price"] for cell in fine)
        per_core = f"{1e6 / cost:,.0f}" if work.unit == "request" else f"{1073.741824 / cost:,.0f}"
        rate = median(cell["rate"] for cell in fine)
        line = [name, f"{cost:.1f}" if work.unit == "request" else f"{cost:.2f}", per_core,
                spread(ratios(cells, name, base)), spread(ratios(cells, name, best)),
                f"{100 * median(cell['kernel'] for cell in fine):.0f}",
                f"{rate:,.0f}" if work.unit == "request" else f"{rate * 1073.741824:,.0f} MB",
                f"{len(fine)}: " + ", ".join(f"{max(0.0, cell['foreign']):.2f}" for cell in fine)]
        if work.latency:
            line[5:5] = [f"{median(cell[q] for cell in fine):,.0f}" for q in ("p50", "p99")] + [
                spread(ratios(cells, name, base, q)) for q in ("p50", "p99")]
        lines.append(row(line))
    return "\n".join([f"### ({work.key}) {work.title}", "", *lines, "", *disturbed(cells), *notes])


# Set if everything that is measured comes before everybody else: then others have what is left over.
FIRST = []


def disturbed(cells):
    """A warning, if somebody else was busy on the proxy's CPU."""
    if FIRST:
        return ["Others had only what was left of the CPU (`--first`): they cost caches and wake-ups, not turns."]
    worst = max((cell["foreign"] for cells_of in cells.values() for cell in good(cells_of)), default=0.0)
    return [f"**Not a quiet machine: others took up to {worst:.0%} of the proxy's CPU. Repeat this.**"] if worst > 0.1 else []


def remarks(name, cells):
    """What went wrong, in which round."""
    out = []
    for n, cell in enumerate(cells, 1):
        said = cell.get("fault") or cell.get("complaints") if cell else "not run"
        if said:
            out.append(f"- {name}, round {n}: {said.strip()}")
    return out


def memory_table(results, levels):
    head = ["proxy", "idle PSS MiB", *[f"KiB per connection at {level:,}" for level in levels]]
    lines, notes = [row(head), row(["-"] * len(head))], []
    for name, result in results.items():
        if "fault" in result:
            notes.append(f"- {name}: {result['fault']}")
            continue
        lines.append(row([name, f"{result['idle'] / 2**20:.1f}",
                          *[f"{result['levels'][level] / 1024:.1f}" for level in levels]]))
    return "\n".join(["### (g) memory of idle TLS connections (HTTP/1.1, kept, one request served)", "", *lines, "", *notes])


def start_table(results):
    head = ["proxy", "ms to listening: median (each)", "CPU ms", "idle RSS MiB", "idle PSS MiB"]
    lines, notes = [row(head), row(["-"] * len(head))], []
    for name, runs in results.items():
        fine = [run for run in runs if "fault" not in run]
        notes += sorted({f"- {name}: {run['fault']}" for run in runs if "fault" in run})
        if fine:
            each = ", ".join(f"{run['ms']:.0f}" for run in fine)
            lines.append(row([name, f"{median(run['ms'] for run in fine):.0f} ({each})",
                              f"{median(run['cpu_ms'] for run in fine):.0f}",
                              f"{median(run['rss'] for run in fine) / 2**20:.1f}",
                              f"{median(run['pss'] for run in fine) / 2**20:.1f}"]))
    return "\n".join(["### (h) start-up", "", *lines, "", *notes])


def row(cells):
    return "| " + " | ".join(cells) + " |"
