"""What clients send. Unknown fields are left alone, as the API does; known ones are checked.

The names are those of the OpenAI API (platform reference, chat completions and completions) and, where marked, of vLLM.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from ftk_api.described import MESSAGE, TOOL

Small = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(max_length=1000)]
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Said = Annotated[dict[str, Any], WithJsonSchema(MESSAGE)]
Tool = Annotated[dict[str, Any], WithJsonSchema(TOOL)]


MOST_PROMPTS = 256
NOT_DONE = ("logit_bias", "suffix", "best_of", "functions", "function_call", "audio", "prediction")


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
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None  # vLLM's
    skip_special_tokens: bool | None = None  # vLLM's
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_other_effect(cls, value: Any) -> Any:
        """Fields that would change the answer are refused rather than left alone."""
        asked = [name for name in NOT_DONE if isinstance(value, dict) and value.get(name)]
        if asked:
            raise ValueError(f"{asked[0]} is not done by this server; leave it out")
        return value


class StreamOptions(BaseModel):
    include_usage: bool = False


class JsonSchema(BaseModel):
    name: str = ""
    json_schema: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def schema_asked(self) -> dict[str, Any] | None:
        """What the answer follows: ``{}`` is any object, None nothing."""
        if self.type == "text":
            return None
        return self.json_schema.json_schema if self.json_schema else {}

    @model_validator(mode="after")
    def _schema_is_there(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self


class NamedFunction(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"] = "function"
    function: NamedFunction


class ChatRequest(Asked):
    """A conversation to be gone on with. Its messages are read where training data are (``ftk_data.turns``)."""

    messages: Annotated[list[Said], Field(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(Asked):
    """Text to be gone on with, without a chat template."""

    prompt: str | Tokens | Annotated[list[str] | list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class EvaluationRequest(BaseModel):
    """Texts to be scored by a reward model, in the way of LLaMA-Factory's API."""

    model: str = ""
    messages: Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]


class ScoreRequest(BaseModel):
    """Conversations, each with an answer at its end, to be scored."""

    model: str = ""
    messages: Annotated[list[list[Said]], Field(min_length=1, max_length=MOST_PROMPTS)]


class EmbeddingRequest(BaseModel):
    model: str = ""
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
