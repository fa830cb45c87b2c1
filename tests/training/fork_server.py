"""Runs of `ramstrans train` by several processes each, forked, so that starting them costs no import.

    python -m tests.training.fork_server RUNS

RUNS is a JSON list of `[number of processes, arguments]`. Prints as JSON, run by run, the exit codes of its
processes and what the first one said.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from importlib import import_module
from importlib.util import find_spec

import ramstrans.training.loop
import ramstrans.training.run
from ramstrans.cli import main
from ramstrans.evaluation import evaluate as evaluation

for module in ("torch.distributed.checkpoint", "torch.utils.tensorboard", "peft"):
    if find_spec(module):
        import_module(module)  # once for all

LIMIT = 300
"""Seconds of a run, which are many: processes that wait for each other for ever are what is looked for."""
GRACE = 20
"""Seconds that the others have when one has failed."""


def start(arguments, environment, said):
    """The process number of a fork that runs a command."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        os.environ.update(environment)
        ramstrans.training.loop.LOG_EVERY = 1
        for name in ("plot_curves", "plot_gallery", "plot_confusion"):
            setattr(evaluation, name, lambda *_: None)
        code = main(arguments)
    finally:
        if sys.exception() is not None:
            traceback.print_exc()
        os._exit(code)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait(children):
    """Exit codes; what does not end is killed."""
    codes, end = {}, time.monotonic() + LIMIT
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
                end = min(end, time.monotonic() + GRACE) if codes[child] else end
            elif time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children]


def run(count, arguments):
    """Exit codes of some processes that run a command together, and what the first one said."""
    port, children = free_port(), []
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as others_said:
        for rank in range(count):
            environment = {
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
                **{"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            }
            stream = others_said if rank else said
            children.append(start(arguments, environment if count > 1 else {}, stream))
        codes = wait(children)
        said.seek(0)
        return codes, said.read()


if __name__ == "__main__":
    sys.stdout.write(json.dumps([run(count, arguments) for count, arguments in json.loads(sys.argv[1])]))
