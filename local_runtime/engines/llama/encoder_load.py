"""From a file to an encoder that can be used: what its header says of pooling, how much is read at
once, and how pairs of texts are put together.
"""

from collections.abc import Callable
from pathlib import Path

import llama_cpp
import msgspec

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama import native
from local_runtime.engines.llama.encoder_context import LAST, RANK, EncoderContext
from local_runtime.engines.llama.encoder_size import encoder_bytes
from local_runtime.engines.llama.libraries import PROCESSOR_LIBRARY
from local_runtime.engines.text_intake import Intake
from local_runtime.engines.threads import candidates, usable_cores
from local_runtime.kinds import Kind, KindError, encoder_context_length, kind_of, pooling_of
from local_runtime.store.gguf import GgufError, GgufHeader, read_header

_RANK_TEMPLATE = "tokenizer.chat_template.rerank"
# llama.cpp puts a softmax behind the head of these (src/llama-graph.cpp, build_pooling).
_GIVES_PROBABILITY = frozenset({"qwen3", "qwen3vl"})
_RARE_WORD = "\U0001e900\U000104b0\ua840"  # letters of Adlam, Osage and Phags-pa in one
_ALL_LAYERS = 999  # encoders are small; without a device llama.cpp takes none


class Encoder(msgspec.Struct, kw_only=True):
    """What was loaded. ``in_parts``: a long text may be read over several batches.
    ``gives_probability``: scores lie between 0 and 1 as they come. ``bytes_expected`` is what it
    takes on the host in the end.
    """

    model: native.Model
    context: EncoderContext
    intake: Intake
    context_length: int
    threads: list[int]
    in_parts: bool
    is_rank: bool
    gives_probability: bool
    bytes_expected: int


def load_encoder(
    spec: EngineSpec, progress: Callable[[float], None], batch_tokens: int, batch_texts: int
) -> Encoder:
    """Raises EngineLoadError; nothing stays loaded then."""
    try:
        header = read_header(Path(spec.path))
        kind = kind_of(header, spec.options.get("task", "auto"))
    except (GgufError, KindError, OSError) as error:
        raise EngineLoadError(str(error)) from error
    if kind is Kind.CHAT:
        raise EngineLoadError("this is a model for conversations, and makes no vectors")
    context_length = spec.context_length or encoder_context_length(header)
    threads = [spec.threads] if spec.threads else candidates(usable_cores())
    native.start_backend(spec.options.get(PROCESSOR_LIBRARY, ""))
    layers = _ALL_LAYERS if spec.gpu_layers is None else spec.gpu_layers
    model = native.Model(spec.path, progress, gpu_layers=layers)
    try:
        _check_vocabulary(model, header)
        context = _context(spec, header, model, context_length, batch_tokens, batch_texts, threads)
    except EngineLoadError:
        model.close()
        raise
    is_rank = kind is Kind.RERANK
    gives_probability = header.architecture in _GIVES_PROBABILITY
    intake = _intake(model, header, context, context_length, is_rank=is_rank)
    return Encoder(
        model=model,
        context=context,
        intake=intake,
        context_length=context_length,
        threads=threads,
        in_parts=_in_parts(context),
        is_rank=is_rank,
        gives_probability=gives_probability,
        bytes_expected=encoder_bytes(header, context_length),
    )


def _check_vocabulary(model: native.Model, header: GgufHeader) -> None:
    """Raises EngineLoadError for a vocabulary with which llama.cpp would abort the process: it
    asserts that BERT's begin and end marks are there (src/llama-vocab.cpp), and gives -1 for a word
    that is unknown where nothing stands for the unknown.
    """
    if header.metadata.get("tokenizer.ggml.model") != "bert":
        return
    marks = (llama_cpp.llama_vocab_bos(model.vocab), llama_cpp.llama_vocab_sep(model.vocab))
    unknown = model.tokenize(_RARE_WORD, add_special=False, parse_special=False)
    if min(*marks, *unknown, 0) < 0:
        raise EngineLoadError(
            "its vocabulary lacks [CLS], [SEP] or [UNK]; convert the model again with llama.cpp's"
            " converter"
        )


def _context(
    spec: EngineSpec,
    header: GgufHeader,
    model: native.Model,
    context_length: int,
    batch_tokens: int,
    batch_texts: int,
    threads: list[int],
) -> EncoderContext:
    """A context whose batches hold the longest text whole, or, where a model can read a text in
    parts, one that remembers the longest text beside a batch.
    """

    def make(room: int, cells: int) -> EncoderContext:
        return EncoderContext(
            model,
            batch_tokens=room,
            cells=cells,
            texts_max=batch_texts,
            threads=threads[-1],
            flash_attention=spec.flash_attention,
        )

    whole = max(batch_tokens, context_length)
    causal = header.metadata.get(f"{header.architecture}.attention.causal", True) is not False
    if causal and pooling_of(header) in {LAST, RANK}:
        context = make(batch_tokens, context_length + batch_tokens)
        if _in_parts(context):
            return _checked(context, header)
        context.close()
    return _checked(make(whole, whole), header)


def _in_parts(context: EncoderContext) -> bool:
    """Only what looks back and takes the last token for the whole can go on where it was."""
    return context.causal and context.pooling in {LAST, RANK}


def _checked(context: EncoderContext, header: GgufHeader) -> EncoderContext:
    """The context, if it pools as the header says. Raises EngineLoadError."""
    if context.pooling != pooling_of(header):
        context.close()
        raise EngineLoadError("llama.cpp does not pool this model's output as its file says")
    heads = context.size
    if context.pooling == RANK and heads != 1 and header.architecture not in _GIVES_PROBABILITY:
        context.close()
        raise EngineLoadError(
            f"its head sorts texts into {heads} classes; one that scores documents has one output"
        )
    return context


def _intake(
    model: native.Model,
    header: GgufHeader,
    context: EncoderContext,
    context_length: int,
    *,
    is_rank: bool,
) -> Intake:
    """Pairs are put together as llama.cpp's own server does (``format_prompt_rerank``)."""
    template = header.metadata.get(_RANK_TEMPLATE)
    end = llama_cpp.llama_vocab_eos(model.vocab)
    separator = llama_cpp.llama_vocab_sep(model.vocab)
    if end < 0:
        end = separator
    adds_end = llama_cpp.llama_vocab_get_add_eos(model.vocab) and end >= 0
    adds_separator = llama_cpp.llama_vocab_get_add_sep(model.vocab) and separator >= 0
    if isinstance(template, str) and not {"{query}", "{document}"} <= _slots_in(template):
        raise EngineLoadError(f"{_RANK_TEMPLATE} has no places for {{query}} and {{document}}")
    return Intake(
        model,
        context_length=context_length,
        size=context.size,
        is_rank=is_rank,
        pair_ends=(end,) if adds_end else (),
        # Files older than the end's own key have the separator only: it ends the query as well.
        pair_middle=(separator,) if adds_separator and adds_end else (),
        rank_template=template if isinstance(template, str) else None,
    )


def _slots_in(template: str) -> set[str]:
    return {slot for slot in ("{query}", "{document}") if slot in template}
