"""A folder of safetensors as an encoder: its configuration, how its output is pooled, and which of
its files are read. No weights are read here, and torch is not imported.

Pooling is what sentence-transformers writes down: ``modules.json`` lists what a text goes through,
and the folder that it names for pooling has the mode.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from local_runtime.engines.torch_tasks.config import (
    JSON_BYTES_MAX,
    ConfigRefused,
    EncoderConfig,
    Head,
    read_config,
    read_json,
)
from local_runtime.kinds import Kind
from local_runtime.store.nesting import depth_of
from local_runtime.store.safetensors import SafetensorsError, read_safetensors

SUFFIX = ".safetensors"
TOKENIZER = "tokenizer.json"
_MODULES, _SENTENCE = "modules.json", "sentence_bert_config.json"
_TOKENIZER_BYTES_MAX = 64 * 1024 * 1024
_TOKENIZER_DEPTH_MAX = 32
_MODULES_MAX = 8
_PARTS_MAX = 1000
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")
# The ways to pool, and sentence-transformers' names for them. A mean by the root of the length
# differs from the mean by its length only, and every vector is scaled to length 1.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_POOLING_WORDS = {
    "cls": "cls",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean",
    "max": "max",
    "lasttoken": "last",
}


class EncoderFolder(msgspec.Struct, frozen=True, kw_only=True):
    """``pooling`` is one of cls, mean, max, last; "head" where a head makes scores. ``lower``:
    texts are written in small letters before anything else.
    """

    config: EncoderConfig
    pooling: str
    weights: list[Path]
    tokenizer: Path
    lower: bool
    bytes: int

    @property
    def kind(self) -> Kind:
        return Kind.RERANK if self.config.labels else Kind.EMBEDDING


def weights_in(folder: Path) -> Path | None:
    """The first or only file of the weights where a folder is a model; None where it is none."""
    if not (folder / "config.json").is_file():
        return None
    found = sorted(folder.glob(f"*{SUFFIX}"))
    whole = folder / f"model{SUFFIX}"
    return whole if whole in found else next(iter(found), None)


def parts_of(path: Path) -> list[Path]:
    """All files of the weights, told from the first: ``NAME-00001-of-00003.safetensors``."""
    split = _PART.fullmatch(path.name)
    if split is None:
        return [path]
    count = min(int(split[2]), _PARTS_MAX)
    names = (f"{split[1]}-{number:05}-of-{split[2]}{SUFFIX}" for number in range(1, count + 1))
    return [path.with_name(name) for name in names]


def files_read(path: Path) -> list[Path]:
    """All files that serving needs, whether there or not, told from the first of the weights."""
    folder = path.parent
    small = [folder / name for name in ("config.json", _MODULES, _SENTENCE, TOKENIZER)]
    return [*parts_of(path), *small, *sorted(folder.glob("*_Pooling/config.json"))]


def read_folder(path: Path) -> EncoderFolder:
    """Everything but the weights' own numbers, of the model whose weights begin in ``path``.

    No folder is listed: the process that serves may read the named files only. Raises
    ConfigRefused, OSError.
    """
    folder = path.parent
    for name in ("config.json", TOKENIZER):
        if not (folder / name).is_file():
            raise ConfigRefused(
                f"{name} is not beside its weights; take the whole repository of the model"
            )
    config = read_config(folder / "config.json")
    if config.labels > 1:
        raise ConfigRefused(
            f"its head sorts texts into {config.labels} classes; one that scores documents has one"
            " output"
        )
    sentence = _optional(folder / _SENTENCE)
    pooling = "head" if config.head is not Head.NONE else _pooling(folder)
    weights = parts_of(path)
    _check_tokenizer(folder / TOKENIZER)
    try:
        headers = [read_safetensors(part) for part in weights]
    except SafetensorsError as error:
        raise ConfigRefused(str(error)) from error
    return EncoderFolder(
        config=config,
        pooling=pooling,
        weights=weights,
        tokenizer=folder / TOKENIZER,
        lower=sentence.get("do_lower_case") is True,
        bytes=sum(header.file_bytes for header in headers),
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _pooling(folder: Path) -> str:
    """How the tokens' vectors become one. Raises ConfigRefused, OSError."""
    if not (folder / _MODULES).is_file():
        raise ConfigRefused(
            "it does not say how its output is pooled into one vector (there is no modules.json)."
            " Take a model for sentence-transformers, with all the files of its repository"
        )
    found = ""
    for kind, path in _modules(folder / _MODULES):
        if kind == "Transformer" and path:
            raise ConfigRefused(f"modules.json has the weights in {path!r}, not beside itself")
        if kind == "Pooling":
            if found or not path or Path(path).name != path or path.startswith("."):
                raise ConfigRefused("modules.json does not name one folder for pooling")
            place = folder / path / "config.json"
            if not place.is_file():
                raise ConfigRefused(
                    f"{path}/config.json is missing, which says how its output is pooled; pull or"
                    " import the model again, from a folder that has it"
                )
            found = _mode(read_json(place))
    if not found:
        raise ConfigRefused("modules.json has no module for pooling")
    return found


def _modules(path: Path) -> list[tuple[str, str]]:
    """The last part of each module's type, and its path. Raises ConfigRefused, OSError."""
    wrapped = path.read_bytes()[: JSON_BYTES_MAX + 1]
    if len(wrapped) > JSON_BYTES_MAX or depth_of(wrapped) > 4:
        raise ConfigRefused("modules.json is too large, or nested too deeply")
    try:
        raw = msgspec.json.decode(wrapped)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"modules.json is not valid JSON: {error}") from error
    if not isinstance(raw, list) or not 1 <= len(raw) <= _MODULES_MAX:
        raise ConfigRefused("modules.json is no list of modules")
    found = []
    for each in raw:
        kind = each.get("type") if isinstance(each, dict) else None
        place = each.get("path") if isinstance(each, dict) else None
        last = kind.rpartition(".")[2] if isinstance(kind, str) else ""
        known = isinstance(kind, str) and kind.startswith("sentence_transformers.")
        if not known or last not in {"Transformer", "Pooling", "Normalize"}:
            raise ConfigRefused(f"the module {str(kind)[:80]!r} of modules.json is not served here")
        found.append((last, place if isinstance(place, str) else ""))
    return found


def _mode(raw: dict[str, Any]) -> str:
    word = raw.get("pooling_mode")
    if isinstance(word, str) and word in _POOLING_WORDS:
        return _POOLING_WORDS[word]
    chosen = [key for key in raw if key.startswith("pooling_mode_") and raw[key] is True]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        said = ", ".join(chosen)[:120] or "none"
        raise ConfigRefused(f"its way of pooling ({said}) is not one that is served here")
    return _POOLINGS[chosen[0]]


def _check_tokenizer(path: Path) -> None:
    """What can be told before native code reads it. Raises ConfigRefused, OSError."""
    if path.stat().st_size > _TOKENIZER_BYTES_MAX:
        raise ConfigRefused(f"{path.name} is too large")
    data = path.read_bytes()
    if depth_of(data) > _TOKENIZER_DEPTH_MAX:
        raise ConfigRefused(f"{path.name} is nested too deeply")
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"{path.name} is not valid JSON: {error}") from error
    model = raw.get("model") if isinstance(raw, dict) else None
    kind = model.get("type") if isinstance(model, dict) else None
    # Files older than the name of the type are told by what only one kind has.
    if kind not in {"WordPiece", "BPE", "Unigram", None} or not isinstance(model, dict):
        raise ConfigRefused(f"{path.name} has the model {str(kind)[:40]!r}, which is not known")
