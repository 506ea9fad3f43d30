"""Jobs that start in hundredths of a second: a process with the libraries imported forks itself for every one.

A run of the workflow in the tests starts hundreds of processes, of which most do less than they import. `path` is a
PATH whose first ``python`` hands ``python -m MODULE ...`` to a server, which has torch and the like in memory but
nothing of this project, and forks a process that runs it with the caller's arguments, folder, environment and open
files. Anything else, and everything once the server is gone, goes to the real interpreter. A job's process is the
server's child, not the caller's: tests that kill jobs, and those of what a user types, go without it.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.conftest import REPOSITORY

LIBRARIES = """torch torchvision.ops numpy h5py pandas cv2 yaml jsonschema PIL.Image matplotlib.figure scipy.stats
scipy.ndimage skimage.segmentation sklearn.linear_model sklearn.metrics sklearn.pipeline sklearn.cluster
snakemake.cli"""

CLIENT = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] == ["-m"]:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect({address!r})
    except OSError:
        pass
    else:
        call = [sys.argv[2:], os.getcwd(), dict(os.environ)]
        socket.send_fds(server, [b"."], [0, 1, 2])
        server.sendall(json.dumps(call).encode() + b"\\n")
        sys.exit(int(server.makefile().readline() or 1))
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


@functools.cache
def path() -> str:
    """The PATH by which jobs start warm, until this process ends; the first call takes some seconds."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    atexit.register(shutil.rmtree, folder)
    address, python = folder / "server", folder / "bin/python"
    python.parent.mkdir()
    python.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    python.chmod(0o755)
    server = subprocess.Popen([sys.executable, "-m", "tests.warm", str(address)], cwd=REPOSITORY)
    atexit.register(server.kill)
    while not address.exists():
        assert server.poll() is None, "the server of warm jobs did not start"
        time.sleep(0.05)
    return os.pathsep.join([str(python.parent), str(Path(sys.executable).parent), os.environ["PATH"]])


def wsss(folder: Path, *words: str | Path, package: Path = REPOSITORY) -> str:
    """Output of a command in a folder, by the package of a project; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(package), "PATH": path(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["python", "-m", "wsss_core.cli", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def serve(address: str) -> None:
    """Fork a process for every call, until this one is killed."""
    sys.path.pop(0)  # this repository: a job has a folder of its own
    for name in LIBRARIES.split():
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address + ".new")
    listening.listen(64)
    os.rename(address + ".new", address)  # it is there once it can be called
    while True:
        caller, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            _answer(caller)
        caller.close()


def _answer(caller: socket.socket) -> None:
    """Run what the caller asks for in a process of its own, which may become another program; tell how it ended."""
    _, files, _, _ = socket.recv_fds(caller, 1, 3)
    words, folder, environment = json.loads(caller.makefile().readline())
    if (job := os.fork()) == 0:
        caller.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os._exit(_run(words, folder, environment))
    _, ended = os.waitpid(job, 0)
    caller.sendall(f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _run(words: list[str], folder: str, environment: dict[str, str]) -> int:
    """Run a module as the main one, as if this process had just been started; its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.argv = ["python", *words[1:]]
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        status: object = 0
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
