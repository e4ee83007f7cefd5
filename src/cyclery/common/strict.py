"""Base class of the pydantic models that validate configuration files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cyclery.common.errors import HERE, choices, nearest


class Strict(BaseModel):
    """A model that refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(
                    f"unknown key {key!r:.80}.{nearest(key, cls.model_fields)} "
                    f"Allowed: {choices(cls.model_fields)}."
                )
        return data


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError(f"{HERE}: must say something (found {text!r:.80}).")
    return text


# Text for readers, such as a reason.
Text = Annotated[str, Field(min_length=1), AfterValidator(_said)]
