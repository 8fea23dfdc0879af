"""Names of models in the store and on the Hub, and the quantisations that file names speak of.

A name is checked before it becomes a part of a path or an address: ``id`` is
``[A-Za-z0-9][A-Za-z0-9._-]{0,95}``, once or twice with a slash between, and holds no ``..``.
"""

import re
from pathlib import PurePosixPath

import msgspec

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ID = re.compile(rf"{_PART}(/{_PART})?")
_VARIANT = re.compile(_PART)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,254}")
_QUANTISATION = re.compile(
    r"(?:^|[-._/ ])((?:UD-)?(?:I?Q[1-9](?:_[0-9A-Z]+)*|TQ[12]_0|BF16|FP?16|FP?32|MXFP4(?:_MOE)?"
    r"|NVFP4))(?=$|[-._/ ])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"^(.+)-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)

# What to take when nobody said: small enough for most machines, and good enough for most uses.
PREFERRED = (
    "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", "Q5_K_M", "Q5_0", "Q6_K", "Q8_0", "MXFP4", "MXFP4_MOE",
    "IQ4_NL", "IQ4_XS", "Q3_K_M", "BF16", "F16", "F32",
)  # fmt: skip
SAFETENSORS = "safetensors"


class NameRefused(ValueError):
    """The text names nothing; it says what a name looks like."""


class StoreName(msgspec.Struct, frozen=True, order=True):
    """A model in the store; without ``variant`` the best of its variants."""

    id: str
    variant: str | None = None

    def __str__(self) -> str:
        return self.id if self.variant is None else f"{self.id}:{self.variant}"


class HubName(msgspec.Struct, frozen=True):
    """A repository on the Hub, which of its quantisations, and at which revision."""

    repo: str
    quant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        quant = "" if self.quant is None else f":{self.quant}"
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hf:{self.repo}{quant}{revision}"


def checked_id(text: str) -> str:
    """``text``, if a model may have it for an id. Raises NameRefused."""
    if not _ID.fullmatch(text) or ".." in text:
        raise NameRefused(
            f"{text[:120]!r} is not the name of a model: ORG/NAME or NAME, of letters, digits,"
            " dots, dashes and underscores, and not more than 96 of them each"
        )
    return text


def checked_variant(text: str) -> str:
    """``text``, if a variant of a model may be called that. Raises NameRefused."""
    if not _VARIANT.fullmatch(text) or ".." in text:
        raise NameRefused(f"{text[:120]!r} is not the name of a variant, such as Q4_K_M")
    return text


def checked_file(text: str) -> PurePosixPath:
    """A path inside a model's folder: relative, plain, nothing hidden. Raises NameRefused."""
    path = PurePosixPath(text)
    plain = str(path) == text and 1 <= len(path.parts) <= 4
    if not plain or not all(_FILE_PART.fullmatch(part) and ".." not in part for part in path.parts):
        raise NameRefused(f"{text[:120]!r} is not a file name that the store takes")
    return path


def parse_store(text: str) -> StoreName:
    """``ORG/NAME[:VARIANT]``, with or without ``store:`` before it. Raises NameRefused."""
    model, colon, variant = text.removeprefix("store:").partition(":")
    return StoreName(checked_id(model), checked_variant(variant) if colon else None)


def parse_hub(text: str) -> HubName:
    """``hf:ORG/REPO[:QUANT][@REVISION]``. Raises NameRefused."""
    scheme, _, rest = text.partition(":")
    rest, at, revision = rest.partition("@")
    repo, colon, quant = rest.partition(":")
    if scheme != "hf" or not repo:
        raise NameRefused(f"{text[:120]!r} is not of the form hf:ORG/REPO[:QUANT][@REVISION]")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise NameRefused(f"{revision[:120]!r} is not a revision: a branch, a tag or a commit")
    return HubName(
        checked_id(repo), checked_variant(quant) if colon else None, revision if at else None
    )


def quantisation_of(file_name: str) -> str | None:
    """What a file's name says that its weights are stored as, such as ``Q4_K_M``."""
    stem = split_of(file_name)[0].rpartition("/")[2]
    found = _QUANTISATION.findall(stem) or _QUANTISATION.findall(file_name)
    return re.sub(r"^FP(?=16|32)", "F", found[-1].upper()) if found else None


def split_of(file_name: str) -> tuple[str, int, int]:
    """A file's name without its part's number, that number from 1, and how many parts there are."""
    found = _SPLIT.match(file_name)
    if found is None:
        return re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE), 1, 1
    return found[1], int(found[2]), int(found[3])


def preference(variant: str) -> tuple[int, str]:
    """Sorts the variants of a model: what is taken first when none was named."""
    plain = variant.upper().removeprefix("UD-")
    return (PREFERRED.index(plain) if plain in PREFERRED else len(PREFERRED), variant)
