"""On PYTHONPATH: this process has only what Windows and macOS have both. Then the wrapper's sitecustomize runs.

What is hidden: fcntl and the other modules that Windows lacks, the names of os, mmap, signal and socket that one of
the two lacks, and /proc. The standard library of this machine cannot do without some of them, so the parts of it
that do are imported first; whatever is imported later, relay_otel among it, finds nothing.
"""

import asyncio
import builtins
import concurrent.futures.thread
import importlib.machinery
import importlib.util
import io
import logging
import mmap
import multiprocessing.connection
import multiprocessing.popen_spawn_posix
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid

_USED = (
    asyncio, concurrent.futures.thread, logging, multiprocessing, random, subprocess, tempfile, threading, uuid
)  # fmt: skip
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "syslog")
NAMES = {
    os: (
        "fork", "forkpty", "register_at_fork", "posix_fallocate", "sched_getaffinity", "getuid", "geteuid", "setsid",
        "killpg", "uname", "mkfifo", "fchmod", "memfd_create", "eventfd", "pread", "pwrite", "O_CLOEXEC",
    ),
    mmap: ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_ANON", "MAP_SHARED", "PROT_READ", "PROT_WRITE"),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGCHLD", "pause", "setitimer"),
    socket: ("SO_REUSEPORT",),  # AF_UNIX stays: this machine's asyncio makes its self-pipe of it
}  # fmt: skip


def _without_proc(call):
    def checked(path, *args, **options):
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
        return call(path, *args, **options)

    return checked


for _name in MODULES:
    sys.modules[_name] = None
for _module, _names in NAMES.items():
    for _name in _names:
        if hasattr(_module, _name):
            delattr(_module, _name)
for _module, _name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "listdir"), (os, "scandir")):
    setattr(_module, _name, _without_proc(getattr(_module, _name)))

_path = os.environ["PYTHONPATH"]
_here = os.path.dirname(os.path.abspath(__file__))
_next = importlib.machinery.PathFinder.find_spec(
    "sitecustomize", [path for path in sys.path if os.path.abspath(path) != _here]
)
if _next is not None:
    _next.loader.exec_module(importlib.util.module_from_spec(_next))
os.environ["PYTHONPATH"] = _path  # the wrapper's has put its folder first: children would find that one only
