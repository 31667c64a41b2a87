"""Inputs and outputs as a client may ask for them: strict, and each refusal says what to write instead."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from worker import files
from worker.protocol import LARGEST
from worker_manager.hub.files.names import ARCHIVES, STORAGES, Source, checked_path, read_prefix, read_source

MOST_INPUTS = 1000
MOST_OUTPUTS = 100
MOST_TEXT = 2**20  # of all names of a job together
HUB = "hub"
JOB = "{job}"  # in a place to keep: the job's id

Switch = Annotated[bool, Field(strict=True)]


def _is_source(text: str) -> str:
    read_source(text)
    return _shown_as_it_is(text)


def _is_place(text: str) -> str:
    if text != HUB:
        read_prefix(text)
    return _shown_as_it_is(text)


def _shown_as_it_is(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds characters that cannot be seen")
    return text


Path = Annotated[str, Field(strict=True, max_length=4096), AfterValidator(checked_path)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Input(_Strict):
    """What stands in the job's directory when it starts. `from` may be written for `source`."""

    source: Annotated[str, Field(strict=True), AfterValidator(_is_source)] = Field(
        validation_alias=AliasChoices("source", "from")
    )
    to: Path | None = None
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$", strict=True)] = ""
    size: Annotated[int, Field(ge=0, le=LARGEST, strict=True)] | None = None
    unpack: Switch = False
    copied: Switch = Field(default=False, alias="copy")
    run: Switch = False

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        source = self.read
        if self.to is None and not _own_name(source, self.unpack):
            raise ValueError("this source has no name of its own: say `to`, the path it is to have")
        if source.folder and (self.unpack or self.run or self.sha256 or self.size is not None):
            raise ValueError("a source that ends in / means everything below it: no unpack, run, sha256 or size")
        if self.unpack and self.run:
            raise ValueError("what is unpacked runs if the archive says so: no run")
        if source.scheme == "blob" and self.sha256 not in ("", source.key):
            raise ValueError("blob: names another digest than sha256")
        return self

    @property
    def read(self) -> Source:
        return read_source(self.source)

    @property
    def path(self) -> str:
        return self.to if self.to is not None else _own_name(self.read, self.unpack)

    @property
    def wire(self) -> files.Input:
        source = self.read
        wire: files.Input = {"to": self.path, "source": self.source}
        if self.sha256 or source.scheme == "blob":
            wire["sha256"] = self.sha256 or source.key
        if self.size is not None:
            wire["size"] = self.size
        if self.unpack:
            wire["unpack"] = True
        if self.copied:
            wire["copy"] = True
        if self.run:
            wire["run"] = True
        return wire


def _own_name(source: Source, unpack: bool) -> str:
    ending = next((each for each in ARCHIVES if source.name.lower().endswith(each)), "") if unpack else ""
    name = source.name[: len(source.name) - len(ending)]
    try:
        return checked_path(name)
    except ValueError:
        return ""


class Output(_Strict):
    """What is kept of the job's directory when it has ended."""

    glob: Path
    to: Annotated[str, Field(strict=True), AfterValidator(_is_place)] = HUB
    required: Switch = True
    always: Switch = False

    @property
    def wire(self) -> files.Output:
        return {"glob": self.glob, "to": self.to, "required": self.required, "always": self.always}


Inputs = Annotated[list[Input], Field(max_length=MOST_INPUTS)]
Outputs = Annotated[list[Output], Field(max_length=MOST_OUTPUTS)]


def make_sense_together(inputs: Sequence[Input], outputs: Sequence[Output], array: bool) -> None:
    """Raises ValueError."""
    taken: dict[str, int] = {}
    for number, each in enumerate(inputs):
        if each.path in taken:
            raise ValueError(f"inputs[{number}] and inputs[{taken[each.path]}] both go to {each.path!r}")
        taken[each.path] = number
    for path, number in taken.items():
        above = path.rpartition("/")[0]
        while above:
            if above in taken:
                raise ValueError(f"inputs[{number}] would lie within inputs[{taken[above]}], {above!r}")
            above = above.rpartition("/")[0]
    kept: set[tuple[str, str]] = set()
    for number, wanted in enumerate(outputs):
        if (wanted.glob, wanted.to) in kept:
            raise ValueError(f"outputs[{number}] stands there twice")
        kept.add((wanted.glob, wanted.to))
        if array and wanted.to != HUB and JOB not in wanted.to:
            raise ValueError(
                f"outputs[{number}]: the tasks of an array would overwrite each other: put {JOB} into `to`"
            )
    if sum(len(each.source) + len(each.path) for each in inputs) > MOST_TEXT:
        raise ValueError("the names of all inputs are larger than 1 MiB together")


def work_of(inputs: Sequence[Input], outputs: Sequence[Output]) -> dict[str, Any]:
    """Their part of a job's `work`."""
    found: dict[str, Any] = {}
    if inputs:
        found["inputs"] = [each.wire for each in inputs]
    if outputs:
        found["outputs"] = [each.wire for each in outputs]
    return found


def ways_of(inputs: Sequence[Input], outputs: Sequence[Output]) -> set[str]:
    """What its worker must say that it can."""
    ways = {name for name, asked in (("inputs", inputs), ("outputs", outputs)) if asked}
    return ways | ({"paths"} if any(each.read.scheme == "file" for each in inputs) else set())


def storages_asked(inputs: Sequence[Input], outputs: Sequence[Output]) -> list[tuple[str, Source]]:
    """What lies in object storage, with where in the job it stands."""
    asked = [(f"inputs[{n}].source", each.read) for n, each in enumerate(inputs)]
    asked += [(f"outputs[{n}].to", read_prefix(each.to)) for n, each in enumerate(outputs) if each.to != HUB]
    return [(where, source) for where, source in asked if source.scheme in STORAGES]


def jobs_asked(inputs: Sequence[Input]) -> list[tuple[str, Source]]:
    """Jobs whose files it takes, with where that stands."""
    return [(f"inputs[{n}].source", each.read) for n, each in enumerate(inputs) if each.read.scheme == "job"]
