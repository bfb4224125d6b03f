"""What the page may ask, checked before anything is done: types, lengths, unknown fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from bitnet_train.json_text import parse_json
from bitnet_train.serve.playground.refusal import Refused

Asked = TypeVar("Asked", bound="Body")
MOST_NEW_TOKENS = 2048
MOST_TEXT = 200_000  # characters of a text or a prompt
Word = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Field(max_length=MOST_TEXT)]
Choice = Annotated[dict[str, str], Field(max_length=20_000)]


class Body(BaseModel):
    """A JSON object with exactly these fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewModel(Body):
    """A model by a word, as `model.source` names one."""

    source: Word


class FolderFile(Body):
    """One file of a folder that is to be uploaded."""

    name: Word
    bytes: Annotated[int, Field(ge=0)]


class NewFolder(Body):
    """A folder that is to be uploaded."""

    files: Annotated[list[FolderFile], Field(min_length=1, max_length=500)]
    name: Word = "folder"


class Bearing(Body):
    """How well each layer bears one bit."""

    kind: Literal["bearing"]
    model: Word


class Swap(Body):
    """The model with some layers swapped, on a text."""

    kind: Literal["swap"]
    model: Word
    choice: Choice
    text: Text | None = None


class Continue(Body):
    """One prompt, continued by the model as it is and with layers swapped."""

    kind: Literal["continue"]
    model: Word
    choice: Choice
    prompt: Annotated[Text, Field(min_length=1)]
    chat: bool = False
    system: Text | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] = 64
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False, strict=False)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0


class Benchmark(Body):
    """How fast both are."""

    kind: Literal["benchmark"]
    model: Word
    choice: Choice


class Run(Body):
    """A run of a recipe."""

    kind: Literal["run"]
    recipe: Word
    overrides: Annotated[list[Word], Field(max_length=100)] = []
    model: Word | None = None


class NewRecipe(Body):
    """A choice of layers, to be kept as a recipe."""

    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    model: Word
    choice: Choice
    base: Word | None = None


JOBS: dict[str, type[Body]] = {
    "bearing": Bearing,
    "swap": Swap,
    "continue": Continue,
    "benchmark": Benchmark,
    "run": Run,
}


async def read(request: Request, kind: type[Asked]) -> Asked:
    """Return the body of a request. Raises Refused, which names the field."""
    return checked(await read_object(request), kind)


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises Refused."""
    try:
        body = parse_json(await request.body(), constant=_refuse_constant)
    except ValueError as error:
        raise Refused(400, f"The body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.", code="invalid_json")
    return body


def checked(body: dict[str, Any], kind: type[Asked]) -> Asked:
    """Return a body as what was asked. Raises Refused, which names the first field that is wrong."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:100]
        raise Refused(400, f"`{field}`: {first['msg']}.", field, "invalid_value") from None


def job_of(body: dict[str, Any]) -> Body:
    """Return the job that a body asks for. Raises Refused."""
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in JOBS:
        raise Refused(400, f"`kind` must be one of: {', '.join(JOBS)}.", "kind", "invalid_value")
    return checked(body, JOBS[kind])


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")
