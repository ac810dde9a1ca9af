"""Processes as /proc shows them: those that descend from this one, and how to end them."""

import ctypes
import os
import signal
import time


class Stat:
    """What /proc says of a process or thread; all fields are empty if it is gone."""

    def __init__(self, folder):
        self.folder = folder
        self.id = int(os.path.basename(folder))
        before, _, after = self.read("stat").rpartition(")")
        self.name = before.partition("(")[2]
        fields = after.split()
        self.state, self.parent = (fields[0], int(fields[1])) if fields else ("gone", 0)

    def read(self, file):
        try:
            with open(f"{self.folder}/{file}", errors="replace") as opened:
                return opened.read()
        except OSError:
            return ""


def entries(folder):
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return []


def threads(process):
    return [Stat(folder) for folder in entries(f"/proc/{process}/task")]


def adopt_orphans():
    """Makes descendants whose parents end children of this process, so that none gets lost. Returns whether that worked."""
    PR_SET_CHILD_SUBREAPER = 36
    return ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def descendants():
    """All living descendants of this process."""
    processes = [Stat(folder) for folder in entries("/proc")]
    found, parents = [], {os.getpid()}
    while parents:
        children = [process for process in processes if process.parent in parents and process.state not in "ZX"]
        found += children
        parents = {child.id for child in children}
    return found


def reap():
    """Takes note of all children that have ended: statuses by process."""
    ended = {}
    try:
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended[result[0]] = os.waitstatus_to_exitcode(result[1])
    except ChildProcessError:
        pass
    return ended


def wait_for_none(seconds):
    """Waits until no descendant lives, and returns those that do."""
    deadline = time.monotonic() + seconds
    while True:
        reap()
        left = descendants()
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.02)


def kill_all(seconds):
    """Kills all descendants, and returns those that do not end within this time, because the kernel holds them."""
    deadline = time.monotonic() + seconds
    while (left := wait_for_none(0)) and time.monotonic() < deadline:
        for process in left:
            try:
                os.kill(process.id, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_for_none(0.1)
    return left
