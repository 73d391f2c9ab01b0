"""How a destination keeps what it is given, as far as that is ours to say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Compression = Literal["rle", "jpeg_ls", "jpeg_2000", "htj2k"]
Tier = Literal["standard", "nearline", "coldline", "archive"]


class StoragePolicy(BaseModel):
    """Each part for those types of destinations alone that can do it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Deleted there so many days after it was stored; kept without it.
    retain_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    # Without loss; what is compressed already, or cannot be, stays as it is.
    compression: Compression | None = None
    # The class of storage, where there are several.
    tier: Tier | None = None
