"""From the body of a request to the bytes of images and options: multipart, raw bytes, or base64 in JSON."""

import asyncio
import base64
import binascii
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ramstrans.serve.limits import Limits, problem

MAX_FIELDS = 16
"""Fields of a form that are not files."""

Add = Callable[[int, int], None]
"""Counts images and bytes of a request, see `Gate.entered`."""


class Upload(NamedTuple):
    """The bytes of one image file, and the name that came along, if one did."""

    name: str | None
    content: bytes


class Options(BaseModel):
    """How a request wants its answer."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(5, ge=1, description="Classes per image; all if there are fewer.")
    explain: bool = Field(
        default=False,
        description="Add `explanation`: a PNG in base64 of the saliency, the region, and what it shows.",
    )
    against: str | None = Field(
        None,
        description="Add `against`: why the answer and not this class, or `runner_up`. Of run folders only.",
    )
    saliency: bool = Field(
        default=False,
        description="Add `saliency`, rows of numbers in [0, 1], and `view`, the part of the image under it.",
    )


class Images(Options):
    """The JSON body of a request."""

    images: list[str] = Field(description="Image files in base64.")


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # bytes are limited, and a disk is slower


async def read_request(
    request: Request, options: Options, limits: Limits, add: Add
) -> tuple[list[Upload], Options]:
    """Read the images of a request, and the options; those in the body count more than the given ones.

    Raises:
        HTTPException: 408, 413, 415, 422 or 503.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    readers = {"multipart/form-data": read_form, "application/json": read_json}
    is_raw = kind.startswith("image/") or kind == "application/octet-stream"
    reader = read_raw if is_raw else readers.get(kind)
    if reader is None:
        raise problem(
            415,
            f"the content type is '{kind}'; send multipart/form-data with the field files, image/* or "
            "application/octet-stream with the bytes of one image, or application/json with images in base64",
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise problem(415, f"the content encoding is '{encoding}'; send the body as it is")
    try:
        async with asyncio.timeout(limits.timeout):
            return await reader(request, options, limits, add)
    except TimeoutError as error:
        raise problem(408, f"the request did not arrive within {limits.timeout:g} seconds") from error
    except ClientDisconnect as error:
        raise problem(400, "the connection was closed before the whole request had arrived") from error


async def limited(request: Request, limits: Limits, add: Add) -> AsyncGenerator[bytes, None]:
    """The chunks of a body.

    Raises:
        HTTPException: 413 as soon as there are too many bytes; before the first if the header says so.
    """
    too_large = problem(413, f"a request may have {limits.max_bytes:,} bytes; send less, or smaller images")
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and int(announced[:20]) > limits.max_bytes:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.max_bytes:
            raise too_large
        add(0, len(chunk))
        yield chunk


async def read_raw(
    request: Request, options: Options, limits: Limits, add: Add
) -> tuple[list[Upload], Options]:
    """One image: the whole body."""
    content = b"".join([chunk async for chunk in limited(request, limits, add)])
    return [Upload(None, content)], options


async def read_json(
    request: Request, options: Options, limits: Limits, add: Add
) -> tuple[list[Upload], Options]:
    """Images in base64."""
    (upload,), _ = await read_raw(request, options, limits, add)
    try:
        body = Images.model_validate_json(upload.content)
    except ValidationError as error:
        raise problem(422, in_words(error.errors())) from error
    check_count(len(body.images), limits)
    uploads = [Upload(None, decoded(text, f"images[{index}]")) for index, text in enumerate(body.images)]
    given = body.model_dump(include=body.model_fields_set - {"images"})
    return uploads, options.model_copy(update=given)


def decoded(text: str, where: str) -> bytes:
    """The bytes that base64 stands for.

    Raises:
        HTTPException: 422, it is not base64, or is a URL.
    """
    if "://" in text[:12]:
        raise problem(422, f"{where} is a URL; this server fetches nothing: send the file itself in base64")
    try:
        return base64.b64decode(text.encode("ascii", "replace"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise problem(
            422, f"{where} is not base64 ({error}); send the file in base64, without a prefix"
        ) from error


async def read_form(
    request: Request, options: Options, limits: Limits, add: Add
) -> tuple[list[Upload], Options]:
    """Files of the field `files`, and options in fields of their names."""
    body = limited(request, limits, add)
    parser = _InMemory(request.headers, body, max_files=limits.max_images, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 413 if error.message.startswith("Too many") else 422
        raise problem(status, f"the form cannot be used: {error.message}") from error
    try:
        uploads, fields = await parts_of(form.multi_items())
    finally:
        await form.close()
    check_count(len(uploads), limits)
    try:
        given = Options.model_validate(fields)
    except ValidationError as error:
        raise problem(422, in_words(error.errors())) from error
    return uploads, options.model_copy(update=given.model_dump(exclude_unset=True))


async def parts_of(items: list[tuple[str, UploadFile | str]]) -> tuple[list[Upload], dict[str, str]]:
    """The files of a form, and its other fields.

    Raises:
        HTTPException: 422, a file in another field, or no file in this one.
    """
    uploads: list[Upload] = []
    fields: dict[str, str] = {}
    for name, value in items:
        if isinstance(value, str):
            if name == "files":
                raise problem(422, "a field files has no file name, so it is text; send a file")
            fields[name] = value
        elif name == "files":
            uploads.append(Upload(value.filename or None, await value.read()))
        else:
            raise problem(422, f"the field of a file is '{name}'; give files")
    return uploads, fields


def check_count(count: int, limits: Limits) -> None:
    """Raise unless a request has images, and not too many.

    Raises:
        HTTPException: 413 or 422.
    """
    if count > limits.max_images:
        raise problem(413, f"{count} images; send {limits.max_images} per request at most")
    if count == 0:
        raise problem(422, "no images; send one or more, by the field files or images")


def in_words(errors: list[Any]) -> str:
    """Say the first of pydantic's errors in one line.

    >>> in_words([{"loc": ("query", "top_k"), "msg": "Input should be greater than 0", "input": "0"}])
    "query.top_k: Input should be greater than 0 (it is '0')"
    >>> in_words([{"type": "extra_forbidden", "loc": ("query", "topk"), "msg": "Extra inputs", "input": "3"}])
    'query.topk: there is no such option; give top_k, explain, against or saliency'
    """
    first = errors[0]
    where = ".".join(map(str, first["loc"])) or "the body"
    if first.get("type") == "extra_forbidden":
        *names, last = Options.model_fields
        return f"{where}: there is no such option; give {', '.join(names)} or {last}"
    value = repr(first["input"])
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return f"{where}: {first['msg']} (it is {shown})"
