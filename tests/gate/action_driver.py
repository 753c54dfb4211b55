"""Replaces an installed fluxperf: the same gate, but revisions are copied into an environment instead of installed.

    python -I action_driver.py serve SOCKET CHECKOUT   imports the gate, then runs what is asked for
    python -I -S action_driver.py run SOCKET WORDS..   asks for a command, in this folder and environment

Importing takes a second and pip several, for each revision. Here one process has imported everything and forks for
each command; a revision gets a virtual environment without pip, and its package copied into it, with what a wheel could
bring along (a ``.pth`` file, a ``sitecustomize``).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path


def built(tree: Path, folder: Path, commit: str, extra: str, libraries: object) -> Path:
    import shutil
    import venv

    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    for name in ("fluxperf", "editable.pth", "sitecustomize.py"):
        if (tree / name).is_dir():
            shutil.copytree(tree / name, packages / name)
        elif (tree / name).exists():
            shutil.copy(tree / name, packages)
    return folder / "bin" / "python"


def serve(place: str, checkout: str) -> None:
    sys.path.insert(0, checkout)
    import fluxperf.cli.gate
    from fluxperf.cli import alive
    from fluxperf.harness import checkouts

    checkouts._build = built
    alive.has_times = lambda: True  # the programs of the tests report times of a GPU
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            message, outputs, _, _ = socket.recv_fds(client, 1 << 20, 2)
            child = os.fork()
            if not child:
                folder, environment, words = json.loads(message)
                for standard, output in enumerate(outputs, 1):
                    os.dup2(output, standard)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environment)
                fluxperf.cli.main(words)
                sys.exit(0)
            for output in outputs:
                os.close(output)
            _, status = os.waitpid(child, 0)
            client.send(bytes([os.waitstatus_to_exitcode(status) & 255]))
            client.close()


def run(place: str, *words: str) -> int:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(place)
        message = json.dumps([os.getcwd(), dict(os.environ), words]).encode()
        socket.send_fds(server, [message], [1, 2])
        return server.recv(1)[0]


if __name__ == "__main__":
    sys.exit({"serve": serve, "run": run}[sys.argv[1]](*sys.argv[2:]))
