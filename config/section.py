"""What every part of the settings tree has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the tree: nothing changes after loading, nothing unknown gets in, no error quotes a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Days = Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)]
SomeDays = Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
