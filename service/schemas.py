"""The documented forms of what the service answers; what it accepts is in `request_schema`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.feedback.outcomes import Outcome

__all__ = [
    "FeedbackAnswer",
    "FeedbackRequest",
    "FieldDescription",
    "FileDescription",
    "Health",
    "ModelDescription",
    "ProblemDocument",
    "ScoreAnswer",
]


class ScoreAnswer(BaseModel):
    """What `POST /score` answers."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Id of the model that gave the scores.")
    request_id: str = Field(description="The request's id: the client's, or one made for it. Also in `X-Request-Id`.")
    scores: list[float] = Field(
        description="Click probability of each candidate, in the order of the request; float32 in shortest text."
    )
    ranking: list[int] | None = Field(
        None,
        description="With `top_k` only: places of the best candidates in the request, best first, ties in its order.",
    )
    feedback_tokens: list[str] | None = Field(
        None,
        description="In answers that are drawn, where feedback is on: a token for each place of the ranking, or "
        "without one for each score. `POST /feedback` takes them back.",
    )


class FeedbackRequest(BaseModel):
    """What `POST /feedback` takes: one event (`token` with `click` or `shown`), or `events`."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field("", description="A candidate's token, as it was answered.")
    click: bool = Field(default=False, description="Whether it was clicked.")
    shown: bool = Field(
        default=True,
        description="Whether it was shown. Needed for tokens of an answer without a ranking: they count once shown.",
    )
    events: list[dict[str, Any]] = Field([], max_length=1000, description="Many of the same, in place of one.")


class FeedbackAnswer(BaseModel):
    """What `POST /feedback` answers."""

    accepted: int = Field(description="Events that were taken; one that repeats another is taken and changes nothing.")
    outcomes: list[Outcome] = Field(description="What each was counted as.")


class ProblemDocument(BaseModel):
    """An error (RFC 9457), as `application/problem+json`."""

    type: str = Field(description="Stable name of the kind of problem, for programs.")
    title: str = Field(description="The same for people.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time.")
    where: str | None = Field(None, description="Place of the fault, such as `candidates[3].price_band`.")
    expected: str | None = Field(None, description="What the place may hold.")
    got: str | None = Field(None, description="What it holds, shortened.")
    request_id: str | None = Field(None, description="The request's id, on scoring routes.")


class Health(BaseModel):
    """Answer of a probe that succeeds; one that fails answers a problem document."""

    status: Literal["alive", "ready", "started"]
    model: str | None = Field(description="Id of the served model, if there is one.")


class FileDescription(BaseModel):
    """One file of the bundle."""

    sha256: str
    bytes: int


class FieldDescription(BaseModel):
    """One field, as requests see it."""

    name: str
    side: Literal["context", "candidate"]
    kind: str = Field(description="categorical, numeric or multi_valued.")
    use: Literal["used", "ignored", "training only"] = Field(
        description="`ignored` may be sent and changes nothing; `training only` is refused."
    )
    max_values: int | None = Field(None, description="Values read of a multi-valued field; more are cut off.")


class ModelDescription(BaseModel):
    """The served model."""

    id: str
    created: str = Field(description="When the bundle was written, ISO 8601.")
    precision: str = Field(description="What the served tables hold: float32, float16 or int8.")
    precisions: list[str] = Field(description="What this bundle could serve.")
    features_digest: str = Field(description="SHA-256 of the feature schema with its vocabularies.")
    files: dict[str, FileDescription]
    fields: list[FieldDescription]
    dropped_fields: list[str] = Field(description="Fields that feature selection dropped; sent or not, all the same.")
    training: dict[str, Any] = Field(description="Metrics, data set, run, versions: what export wrote.")
    model: dict[str, Any] = Field(description="Parameters, FLOPs, folding, tolerance: what export wrote.")
