"""What may be asked? Strangers' data, checked here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from aiom4b.control.schemas.names import TEXT_OR_BYTES, GivenName, named
from aiom4b.jobs.job import JobOptions, Status
from aiom4b.models import Name, OrderChoice


class Request(BaseModel):
    """What somebody asks for; a name that we don't know is refused rather than overlooked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _relative(path: str) -> str:
    if path.startswith("/") or not set(path.split("/")).isdisjoint({"", ".", ".."}) or not path.endswith(".m4b"):
        raise ValueError("should be a path inside the library, relative to it, that ends in .m4b")
    return path


class BookWishes(Request):
    """How the books shall be made."""

    merge: bool = Field(default=False, description="All folders are one book; otherwise each is a job of its own.")
    output: (
        Annotated[Name, BeforeValidator(_relative), BeforeValidator(named), WithJsonSchema(TEXT_OR_BYTES)] | None
    ) = Field(default=None, description="Where the book goes: a path relative to the library, ending in .m4b.")
    format: Literal["m4b"] = Field(default="m4b", description="What is made. There is one format.")
    naming_scheme: str | None = Field(
        default=None, max_length=1000, description="A template for the book's path, in place of library.template."
    )
    order: OrderChoice = Field(default=OrderChoice.AUTO, description="Whose order of the files counts.")
    again: bool = Field(default=False, description="Make the book even if the library has it already.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="The larger, the sooner.")

    def options(self) -> JobOptions:
        """Return what was asked for as the options of a job."""
        return JobOptions(
            order=self.order,
            merge=self.merge,
            naming_scheme=self.naming_scheme,
            output=self.output,
            again=self.again,
        )


class ConvertRequest(BookWishes):
    """Folders to make books of."""

    folders: list[GivenName] = Field(
        min_length=1, max_length=1000, description="Names relative to the source directory, or absolute inside it."
    )

    @model_validator(mode="after")
    def _one_place_for_one_book(self) -> Self:
        if self.output is not None and not self.merge and len(self.folders) > 1:
            raise ValueError("output names one book, but several folders are given without merge")
        return self


class JobRequest(BookWishes):
    """One folder to make a book of."""

    folder: GivenName = Field(description="A name relative to the source directory, or absolute inside it.")


class OrderByWitness(Request):
    """Whose order counts."""

    by: OrderChoice


class OrderByFiles(Request):
    """The audio files in playing order."""

    files: list[GivenName] = Field(min_length=1, max_length=10_000)


OrderRequest = OrderByWitness | OrderByFiles | Annotated[list[GivenName], Field(min_length=1, max_length=10_000)]


def wanted_order(request: OrderRequest) -> OrderChoice | tuple[Name, ...]:
    """Return the order that was asked for."""
    if isinstance(request, OrderByWitness):
        return request.by
    return tuple(request.files if isinstance(request, OrderByFiles) else request)


class PriorityRequest(Request):
    """How urgent a job is."""

    priority: int = Field(ge=-1000, le=1000, description="The larger, the sooner.")


class ClearRequest(Request):
    """Which ended jobs leave the history."""

    status: list[Literal[Status.COMPLETED, Status.FAILED, Status.CANCELLED]] = Field(
        default=[Status.COMPLETED, Status.FAILED, Status.CANCELLED], description="All ended ones unless given."
    )
    older_than_days: float = Field(
        default=0, ge=0, le=36_500, description="Only those that ended so long ago or longer."
    )


class ForgetRequest(Request):
    """What shall be converted again although the library has it: an entry of the source, or a fingerprint."""

    what: GivenName = Field(description="The name of an entry of the source, or a fingerprint.")


class RestoreRequest(Request):
    """Where a backup goes."""

    target: GivenName | None = Field(
        default=None,
        description="A folder inside the source directory, relative to it or absolute; where it came from unless given.",
    )
