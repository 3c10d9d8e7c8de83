"""Starting, pinning, weighing and ending the processes of a run."""

import ctypes
import os
import re
import resource
import signal
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
PROXY_CPU = CPUS[0]
LOAD_CPU = CPUS[1] if len(CPUS) > 1 else CPUS[0]
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
libc = ctypes.CDLL(None)
libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a peer leaves behind becomes ours to end


FREE = []  # the group of everything that runs without a quota, if it is to come first


def raise_limit():
    """As many open files as this user may have: thousands of idle connections need them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def start(command, cpu, quota=None, **options):
    """Starts a process on one CPU. It dies with this one, whatever happens."""

    def settle():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, {cpu})
        for group in [quota] if quota else FREE:
            group.enter()

    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(command, preexec_fn=settle, **options)


def end(process, patience=4.0):
    """Ends a process that `start` started, and its children if it leaves any behind."""
    family = tree(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in family - {process.pid}:
        try:
            if parent(pid) in family | {os.getpid()}:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        except OSError:
            pass


def read(path):
    """A small file of /proc, or "" when the process is gone."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def stat(pid):
    """The fields of /proc/PID/stat after the command's name, which may hold anything."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def parent(pid):
    fields = stat(pid)
    return int(fields[1]) if fields else None


def tree(root):
    """The process and all its descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent(name), []).append(int(name))
    family, todo = set(), [root]
    while todo:
        pid = todo.pop()
        family.add(pid)
        todo += children.get(pid, [])
    return family


class Used:
    """CPU that a process tree has used, thread by thread, at one moment."""

    def __init__(self, root):
        self.at = time.monotonic()
        self.threads, self.user, self.kernel = {}, 0, 0
        for pid in tree(root):
            fields = stat(pid)
            if not fields:
                continue
            self.user += int(fields[11])
            self.kernel += int(fields[12])
            for tid in self.tids(pid):
                text = read(f"/proc/{pid}/task/{tid}/schedstat").split()
                if text:
                    self.threads[pid, tid] = int(text[0])
        self.busy = busy_ticks(PROXY_CPU)
        self.load = busy_ticks(LOAD_CPU)

    @staticmethod
    def tids(pid):
        try:
            return os.listdir(f"/proc/{pid}/task")
        except OSError:
            return []

    def since(self, before):
        """What was used between two moments."""
        ticks = self.user + self.kernel - before.user - before.kernel
        kernel = self.kernel - before.kernel
        ns = sum(used - before.threads.get(key, 0) for key, used in self.threads.items())
        if not any(self.threads.values()):  # a kernel without schedstats counts ticks only
            ns = ticks * 1_000_000_000 // TICK
        seconds = self.at - before.at
        return {
            "seconds": seconds,
            "cpu_ns": ns,
            "kernel": kernel / ticks if ticks > 0 else 0.0,
            "load": (self.load - before.load) / TICK / seconds,
            "foreign": (self.busy - before.busy) / TICK / seconds - ns / 1e9 / seconds,
        }


def busy_ticks(cpu):
    """Ticks in which a CPU was not idle, whoever used it."""
    line = re.search(rf"^cpu{cpu} (.*)$", read("/proc/stat"), re.M)
    fields = [int(word) for word in line.group(1).split()]
    return sum(fields[:8]) - fields[3] - fields[4]


def memory(root):
    """Proportional and resident memory of a process tree, bytes."""
    pss = rss = 0
    for pid in tree(root):
        text = read(f"/proc/{pid}/smaps_rollup")
        for name, value in re.findall(r"^(Pss|Rss):\s+(\d+) kB", text, re.M):
            if name == "Pss":
                pss += int(value) * 1024
            else:
                rss += int(value) * 1024
    return {"pss": pss, "rss": rss}


class Group:
    """A cpu cgroup of our own, version 1 or 2."""

    def __init__(self, path, version):
        self.path, self.version = path, version

    @classmethod
    def make(cls, name, first):
        """The cgroup, or None and the reason why not. With `first` its weight is the highest there is."""
        reason = "no writable cpu cgroup"
        for base, version in (("/sys/fs/cgroup/cpu", 1), ("/sys/fs/cgroup/cpu,cpuacct", 1), ("/sys/fs/cgroup", 2)):
            if version == 2 and "cpu" not in read(f"{base}/cgroup.subtree_control").split():
                continue
            if not os.path.isdir(base):
                continue
            path = f"{base}/ravelin-referee-{name}-{os.getpid()}"
            try:
                os.mkdir(path)
                group = cls(path, version)
                group.limit()
                if first:
                    group.write(*(("cpu.shares", 262144) if version == 1 else ("cpu.weight", 10000)))
                return group, None
            except OSError as error:
                reason = f"{base}: {error.strerror}"
                if os.path.isdir(path):
                    os.rmdir(path)
        return None, reason

    def limit(self):
        """No limit."""

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w") as file:
            file.write(str(value))

    def enter(self):
        """Moves the calling process in (its children follow)."""
        self.take(os.getpid())

    def take(self, pid):
        """Moves a running process in."""
        self.write("cgroup.procs", pid)

    def remove(self):
        for _ in range(20):
            try:
                return os.rmdir(self.path)
            except OSError:
                time.sleep(0.1)


class Quota(Group):
    """Half of the CPU for the proxy, so that every proxy is the bottleneck: one that waits for the
    generator loses its batching and looks worse than it is."""

    PERIOD_US, QUOTA_US = 20_000, 10_000

    def limit(self):
        if self.version == 1:
            self.write("cpu.cfs_period_us", self.PERIOD_US)
            self.write("cpu.cfs_quota_us", self.QUOTA_US)
        else:
            self.write("cpu.max", f"{self.QUOTA_US} {self.PERIOD_US}")
