"""What the answers and requests of a server look like, for its OpenAPI description."""

from typing import Any

from pydantic import BaseModel, Field

from ramstrans.serve.requests import Images, Options


class Scale(BaseModel):
    """Prediction of one scale."""

    labels: list[str]
    probabilities: list[float | None]
    box: list[float | None] | None = Field(description="Its region, x0, y0, x1, y1 in pixels of the image.")
    has_region: bool | None = Field(description="False where nothing stood out: the box is all it saw.")


class RankAnswer(BaseModel):
    """Answer at the finest rank of the taxonomy that is certain."""

    name: str | None = Field(description="The group or class; null where no rank is certain.")
    rank: str = Field(description="Name of its rank; root where none is certain.")
    probability: float | None


class PriorsEffect(BaseModel):
    """What the server's list of classes changed."""

    matched: str | None
    label_before: str
    probability_before: float | None
    changed: bool


class Against(BaseModel):
    """The answer beside another class."""

    answer: str
    compared_with: str = Field(alias="class")
    probabilities: list[float] = Field(description="Of both.")
    differences: list[float] = Field(description="Per scale, the logit of the answer minus the other.")
    picture: str = Field(description="A PNG in base64: what each scale saw, blue where it speaks for it.")


class Row(BaseModel):
    """Prediction for one image."""

    name: str | None = Field(description="The file's name, as sent.")
    error: str | None = Field(description="Why the image could not be read.")
    labels: list[str] = Field(description="Most probable classes, best first.")
    probabilities: list[float | None]
    present: list[str] | None = Field(default=None, description="With several labels: those it has.")
    unknown: bool | None = Field(default=None, description="Whether it is of no class of the model.")
    unknown_score: float | None = Field(default=None, description="Higher for more unlikely images.")
    set: list[str] | None = Field(default=None, description="Classes of which one is the true one.")
    answer: RankAnswer | None = Field(default=None, description="Null if the model has no taxonomy.")
    priors: PriorsEffect | None = Field(default=None, description="Null without --priors.")
    scales: list[Scale]
    saliency: list[list[float]] | None = Field(default=None, description="With saliency=true.")
    view: list[float] | None = Field(default=None, description="With saliency=true: x0, y0, x1, y1.")
    explanation: str | None = Field(default=None, description="With explain=true: a PNG in base64.")
    against: Against | None = Field(default=None, description="With against=CLASS.")


class Predictions(BaseModel):
    """One row per image, in order."""

    predictions: list[Row]


class Problem(BaseModel):
    """What is wrong."""

    detail: str


class Status(BaseModel):
    """How the server is."""

    status: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The connection was closed, or the request is not HTTP",
        401: "The API key is missing or wrong",
        408: "The request did not arrive in time",
        413: "Too many bytes or images",
        415: "A content type that is not read",
        422: "An option, a form, base64 or the only image that cannot be used",
        500: "The model failed; the server's log says why",
        503: "Too busy, or stopping; try again",
        504: "No answer in time",
    }.items()
}
"""Errors of /predict."""

_FILE = {"type": "string", "format": "binary"}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "additionalProperties": False,
                    "properties": {
                        "files": {"type": "array", "items": _FILE, "minItems": 1},
                        **Options.model_json_schema()["properties"],
                    },
                }
            },
            "application/json": {"schema": Images.model_json_schema()},
            "application/octet-stream": {"schema": _FILE},
            "image/*": {"schema": _FILE},
        },
    }
}
"""The body of a request to /predict, which is read by hand, for limits that hold while it arrives."""
