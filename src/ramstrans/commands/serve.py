"""`ramstrans serve`."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ramstrans.calibration.wanted import check_rank_confidence
from ramstrans.commands.options import Parser
from ramstrans.errors import UsageError
from ramstrans.options import Precision
from ramstrans.plain import counted
from ramstrans.saved.metadata import load_metadata
from ramstrans.serve.limits import Limits

if TYPE_CHECKING:
    from ramstrans.serve.engine import Engine

logger = logging.getLogger(__name__)

DEFAULTS = Limits()

MAX_PORT = 65_535

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


def add_options(parser: Parser) -> None:
    """Options of `serve`: the parameters of the function."""
    parser.add_function_arguments(serve, as_group=False, as_positional=True)


def run(options: Namespace, _given: list[str]) -> int:
    """Answer by HTTP, until Ctrl-C or SIGTERM."""
    return serve(**vars(options))


def serve(
    run: Path,
    host: str = "127.0.0.1",
    port: NonNegativeInt = 8000,
    api_key_file: Path | None = None,
    max_batch: PositiveInt = DEFAULTS.max_batch,
    max_wait_ms: NonNegativeFloat = 1000 * DEFAULTS.max_wait,
    max_queue: PositiveInt = DEFAULTS.max_queue,
    max_images: PositiveInt = DEFAULTS.max_images,
    max_bytes: PositiveInt = DEFAULTS.max_bytes,
    max_pixels: PositiveInt = 64_000_000,
    timeout: PositiveFloat = DEFAULTS.timeout,
    early_exit: float | Literal["auto"] | None = None,
    num_scales: PositiveInt | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    rank_confidence: float | None = None,
    priors: Path | None = None,
) -> int:
    """Serve a model.

    Args:
        run: Run folder, any saved model, or a folder of `export`.
        host: Address to listen on; 0.0.0.0 for all of this machine.
        port: Port to listen on; 0: any free one.
        api_key_file: File with a key that requests must have, as `Authorization: Bearer KEY`.
        max_batch: Images that pass through the model at once.
        max_wait_ms: Milliseconds that a batch waits for images that are being decoded, and for those who were
            just answered to ask again.
        max_queue: Images of all requests that wait for their answers; more are refused, with status 503.
        max_images: Images per request.
        max_bytes: Bytes per request.
        max_pixels: Pixels per image; larger ones are not decoded.
        timeout: Seconds for a request to arrive, and again for its answer.
        early_exit: Confidence at which an image skips the remaining scales; auto: the one that
            `evaluate --early_exit auto` chose.
        num_scales: Use the first so many of the scales that were trained; default: all, of calcrop one.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
        rank_confidence: Probability that an answer at some rank of the taxonomy is to reach, above 0.5;
            default: that of `calibrate`.
        priors: List of the classes that occur, or a table of weights without conditions, for all images.

    Raises:
        RamsTransError: The model, the key or the address cannot be used.
    """
    from ramstrans.export.runner import need

    for library in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        need(library, "serve")
    from ramstrans.serve.server import bind, run_server, url_of

    if port > MAX_PORT:
        raise UsageError(f"--port is {port}; give 0 to {MAX_PORT}")
    limits = Limits(max_batch, max_wait_ms / 1000, max_images, max_queue, max_bytes, timeout)
    limits.check()
    key = None if api_key_file is None else read_key(api_key_file)
    of_run = {"device": device, "precision": precision, "early_exit": early_exit, "num_scales": num_scales}
    of_any = {"rank_confidence": rank_confidence, "priors": priors}
    check_rank_confidence(rank_confidence)
    check_model(run, of_run)
    # PyTorch's OpenMP keeps a team of threads for each thread that computes. With two teams there are more
    # threads than processors, and they sleep after every operation instead of waiting: a quarter slower.
    with bind(host, int(port)) as listener, ThreadPoolExecutor(1, "compute") as thread:
        if host not in LOCAL and key is None:
            logger.warning("whoever reaches %s may use it; --api_key_file FILE asks for a key", host)
        engine = thread.submit(open_engine, run, of_run, of_any).result()
        engine.max_pixels = max_pixels
        thread.submit(warm_up, engine).result()
        from ramstrans.serve.app import create_app

        about = f"{run} ({counted(len(engine.about()['classes']), 'class')}) answers at {url_of(listener)}"
        run_server(create_app(engine, thread, limits, key), listener, about)
    return 0


def read_key(path: Path) -> str:
    """The key in a file.

    Raises:
        UsageError: The file cannot be read, or has no key.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(
            f"--api_key_file {path} cannot be read ({reason}); give a file with a key"
        ) from error
    if not key or not key.isascii() or len(key.split()) > 1:
        raise UsageError(f"--api_key_file {path} has no key of ASCII letters on one line; write one into it")
    return key


def check_model(folder: Path, of_run: dict[str, Any]) -> None:
    """Check a folder before anything large is loaded.

    Raises:
        RamsTransError: It is not a model.
        UsageError: An option is only for runs.
    """
    from ramstrans.export.runner import format_of

    if format_of(folder) is None:
        load_metadata(folder)
        return
    usual = {"device": "auto"}
    given = [f"--{name}" for name, value in of_run.items() if value not in (None, usual.get(name))]
    if given:
        raise UsageError(
            f"{folder} is an exported model, in which {' and '.join(given)} cannot be changed; export it so, "
            "or serve the run (early exit is in no graph)"
        )


def open_engine(folder: Path, of_run: dict[str, Any], of_any: dict[str, Any]) -> "Engine":
    """Load a model with the options of its kind: an exported one without PyTorch.

    Raises:
        RamsTransError: It cannot be loaded, or the priors depend on more than a request says.
    """
    from ramstrans.export.runner import format_of

    engine: Engine
    if format_of(folder) is not None:
        from ramstrans.serve.engine import ExportedEngine

        engine = ExportedEngine(folder, **of_any)
    else:
        from ramstrans.inference.predictor import Predictor
        from ramstrans.serve.run_engine import RunEngine

        engine = RunEngine(Predictor.load(folder, **of_run, **of_any))
    if engine.priors is not None:
        engine.priors.check_no_conditions("a server")
    return engine


def warm_up(engine: "Engine") -> None:
    """Answer for a grey image: the first pass takes longer, and shows what does not work."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(stream, "PNG")
    engine.answer([engine.read(stream.getvalue())], 1)
