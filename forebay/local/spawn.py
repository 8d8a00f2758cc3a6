"""Runs a program that ends when its parent does: `python spawn.py PARENT_PID PROGRAM ARGUMENT…`.

Executed as a file, before anything is imported, so that it takes milliseconds. It becomes the
program, which keeps its process id. Doing this between fork and exec instead would run Python in a
forked copy of a process with gRPC's threads, which deadlocks now and then.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel for SIGTERM at the parent's end, then becomes the program."""
    parent_pid, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have ended before the kernel was asked.
    if os.getppid() != int(parent_pid):
        raise SystemExit("the parent has ended")
    # nats-server answers many small messages: see services/runtime/scheduling.py.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.execv(command[0], command)  # noqa: S606, this is the point


if __name__ == "__main__":
    main()
