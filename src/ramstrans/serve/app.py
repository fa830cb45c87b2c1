"""The routes of a server, as a FastAPI application."""

import hmac
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramstrans import __version__
from ramstrans.serve.engine import Engine
from ramstrans.serve.limits import Limits, problem
from ramstrans.serve.requests import Options, in_words, read_request
from ramstrans.serve.schema import BODY, PROBLEMS, Predictions, Status
from ramstrans.serve.service import Service

DESCRIPTION = "Fine-grained image recognition that looks twice. No request of this server fetches anything."


def create_app(engine: Engine, thread: Executor, limits: Limits, key: str | None = None) -> FastAPI:
    """The application that answers by an engine.

    Args:
        engine: The model.
        thread: Where it computes: one thread, that in which it was loaded, see `commands.serve`.
        limits: What is accepted.
        key: What `Authorization: Bearer KEY` must give, but for /health, /ready and the page; None: nothing.
    """
    service = Service(engine, limits, thread)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(
        title="ramstrans",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Watched, service=service)
    app.add_exception_handler(RequestValidationError, _invalid)
    guarded = [] if key is None else [Depends(KeyCheck(key))]
    _add_status(app, service)
    _add_model(app, service, guarded)
    _add_predict(app, service, guarded)
    if page := page_folder():
        app.mount("/", StaticFiles(directory=page, html=True), name="page")
    return app


def page_folder() -> Path | None:
    """The folder of the page that comes along, if it does."""
    folder = Path(str(resources.files("ramstrans"))) / "web"
    return folder if (folder / "index.html").is_file() else None


def _add_predict(app: FastAPI, service: Service, guarded: list[Any]) -> None:
    @app.post(
        "/predict",
        dependencies=guarded,
        openapi_extra=BODY,
        responses=PROBLEMS | {200: {"model": Predictions}},
        summary="Classify images",
    )
    async def predict(request: Request, query: Annotated[Options, Query()]) -> Response:
        """Classify one or several images; several with one that cannot be read have a row with an error."""
        with service.gate.entered() as add:
            add(1, 0)
            uploads, options = await read_request(request, query, service.limits, add)
            add(len(uploads) - 1, 0)
            try:
                rows = await service.predict(uploads, options)
            except TimeoutError as error:
                limit = service.limits.timeout
                raise problem(504, f"no answer within {limit:g} seconds; send fewer images") from error
            except HTTPException:
                raise
            except Exception as error:
                raise problem(500, f"the model failed: {type(error).__name__}: {error}") from error
            if len(rows) == 1 and rows[0]["error"]:
                raise problem(422, f"the image cannot be read: {rows[0]['error']}")
            return JSONResponse({"predictions": rows})


def _add_model(app: FastAPI, service: Service, guarded: list[Any]) -> None:
    refused: dict[int | str, dict[str, Any]] = {401: PROBLEMS[401]} if guarded else {}

    @app.get("/model", dependencies=guarded, responses=refused, summary="What answers here")
    async def model() -> dict[str, Any]:
        """The model, its classes, and the limits of this server."""
        about = {"ramstrans_version": __version__, "max_pixels": service.engine.max_pixels}
        return about | service.limits._asdict() | service.engine.about()

    @app.get(
        "/metrics",
        dependencies=guarded,
        response_class=Response,
        responses=refused | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Counters",
    )
    async def metrics() -> Response:
        """Requests, images, batches and times in Prometheus' format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_status(app: FastAPI, service: Service) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether the process runs")
    async def health() -> Status:
        """Always 200."""
        return Status(status="ok")

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", responses={503: PROBLEMS[503]}, summary="Whether to send requests")
    async def ready() -> Status:
        """200, as the model is loaded before the server listens; 503 once it stops."""
        if service.is_stopping:
            raise problem(503, "stopping")
        return Status(status="ready")


class KeyCheck(HTTPBearer):
    """Lets only requests with the key through."""

    def __init__(self, key: str) -> None:
        super().__init__(auto_error=False)
        self._key = key.encode()

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials:
        """Check the header.

        Raises:
            HTTPException: 401.
        """
        given = await super().__call__(request)
        if given is None or not hmac.compare_digest(given.credentials.encode(), self._key):
            raise problem(
                401,
                "send the header Authorization: Bearer KEY with this server's key",
                {"WWW-Authenticate": "Bearer"},
            )
        return given


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    text = problem(422, in_words(list(error.errors()))).detail
    return JSONResponse({"detail": text}, 422)


class Watched:
    """Counts requests; while the server stops, each answer is the last one of its connection."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.is_stopping:
                    message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._service.metrics.request(scope["path"], status, time.perf_counter() - started)
