"""Which files in which directories ask for a backup, and what becomes of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from config.section import Section

FileName = Annotated[str, StringConstraints(pattern=r"^\.{0,2}[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*$", max_length=255)]
"""One name in a directory."""
OwnerText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
"""`user:group`, names or numbers."""
ModeText = Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3,4}$")]
"""Permission bits in octal digits."""
PlanTemplate = Annotated[
    str, StringConstraints(pattern=r"^(\{directory\}|[A-Za-z0-9])([A-Za-z0-9._-]|\{directory\})*$", max_length=255)
]
"""The name of a plan, or one with `{directory}` in it."""


def _absolute_pattern(pattern: str) -> str:
    steps = pattern.split("/")
    message = None
    if not pattern.startswith("/"):
        message = "must be an absolute path, in which * and ? may stand for parts of names"
    elif ".." in steps or "**" in steps:
        message = f"{'..' if '..' in steps else '**'} is no name here"
    if message is None:
        return pattern
    hint = "for instance /srv/collect/*: every directory in /srv/collect"
    raise PydanticCustomError("setting", "{message}", {"message": message, "hint": hint})


DirectoryPattern = Annotated[str, AfterValidator(_absolute_pattern), Field(json_schema_extra={"pattern": r"^(/|\$)"})]


class Afterwards(Section):
    """What is done in the indicator's directory once the outcome is known."""

    write: FileName | None = None
    """A file to write beside the indicator, for whoever waits there; it names request, set and outcome. On success of a
    plan of the handler `stage` the handler writes it, to those peers whose data is in the set."""
    owner: OwnerText | None = None
    """Whom that file is given to, as `user:group`, names or numbers; by default it belongs to the worker's user."""
    mode: ModeText = "0644"
    """The permission bits of that file."""
    indicator: Literal["leave", "move", "delete"] = "leave"
    """What becomes of the indicator itself. One that is left asks for nothing more until somebody touches it."""
    move_to: FileName = "done"
    """The directory, beside the indicator, that it is moved to with `indicator: move`; made where it is missing."""


class Indicators(Section):
    """Directories in which a file of a certain name asks for a backup."""

    directories: Annotated[tuple[DirectoryPattern, ...], Field(min_length=1)]
    """Where indicators appear; `*`, `?` and `[...]` stand for parts of one name, and directories that are made later
    are found too."""
    name: FileName = "cback.collect"
    """What the indicator is called. What is in the file does not matter."""
    plan: PlanTemplate
    """The plan it asks for; `{directory}` stands for the name of the directory in which the indicator is."""
    level: Literal["auto", "full", "incremental"] = "auto"
    """Which level it asks for."""
    on_success: Afterwards = Afterwards(write="cback.stage")
    """What is done after a backup."""
    on_failure: Afterwards = Afterwards()
    """What is done where none could be made, or the request was refused."""
    on_partial: Literal["success", "failure"] = "failure"
    """Which of the two is done after a backup that lacks files."""
    scan_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    """How often all directories are looked through, whether or not something was heard of them."""
    poll_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 5.0
    """How often those are looked through on whose file system the kernel does not tell of all changes, such as NFS."""
    settle_seconds: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = 0.0
    """How long an indicator must have been left alone before it counts, for those who write it more than once."""
