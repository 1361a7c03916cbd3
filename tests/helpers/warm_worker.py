"""A program of ``warm`` in the place of this one, for what starts Python by itself, as torchrun does with its workers.

The command follows as arguments. The program has this one's output, environment and folder; it gets the signals that
this one gets, and this one ends as it ends, by a signal too. If this one is killed, so is the program.
"""

import json
import os
import signal
import socket
import sys

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(name: str, command: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until there is one to pass them on to
    asked = {"command": command, "cwd": os.getcwd(), "env": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(f"\0{name}")
        socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2])
        program = int(line.recv(100))
        for number in STOPS:
            signal.signal(number, lambda number, _: os.kill(program, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        ended = os.waitstatus_to_exitcode(int(line.recv(100)))
    if ended >= 0:
        sys.exit(ended)
    if -ended != signal.SIGKILL:
        signal.signal(-ended, signal.SIG_DFL)
    os.kill(os.getpid(), -ended)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
