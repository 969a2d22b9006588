"""What clients send. Unknown fields are left alone, as the API does; known ones are checked.

The names are those of the OpenAI API (platform reference, chat completions and completions) and, where marked, of vLLM.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Small = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Asked(BaseModel):
    """What every request for an answer may say. None is the default of the server's YAML."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str = ""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None  # vLLM's
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None  # vLLM's
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None  # vLLM's
    presence_penalty: Small | None = None
    frequency_penalty: Small | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Seed | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None  # vLLM's
    skip_special_tokens: bool | None = None  # vLLM's
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class JsonSchema(BaseModel):
    name: str = ""
    json_schema: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class NamedFunction(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"] = "function"
    function: NamedFunction


class ChatRequest(Asked):
    """A conversation to be gone on with. Its messages are read where training data are (``ftk_data.turns``)."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(Asked):
    """Text to be gone on with, without a chat template."""

    prompt: str | list[str] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class ScoreRequest(BaseModel):
    """Conversations, each with an answer at its end, to be scored."""

    model: str = ""
    messages: Annotated[list[list[dict[str, Any]]], Field(min_length=1, max_length=256)]


class EmbeddingRequest(BaseModel):
    model: str = ""
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
