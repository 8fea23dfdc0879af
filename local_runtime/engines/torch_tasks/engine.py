"""The torch engine: vectors and scores of encoders in safetensors. ``contract.py`` has its rules.

Batches and bills are those of ``text_encoder.py``. Importing this imports torch, so only a child
does, or a server with ``placement = "inline"``, once such a model is loaded.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from local_runtime.engines.contract import EngineInfo, EngineLoadError, EngineSpec
from local_runtime.engines.text_batch import Row
from local_runtime.engines.text_encoder import BATCH_TEXTS, TextEncoder
from local_runtime.engines.text_intake import Intake
from local_runtime.engines.threads import candidates, usable_cores
from local_runtime.engines.torch_tasks.config import ConfigRefused
from local_runtime.engines.torch_tasks.device import Choice, choose
from local_runtime.engines.torch_tasks.folder import EncoderFolder, read_folder
from local_runtime.engines.torch_tasks.network import Network
from local_runtime.engines.torch_tasks.serving import BATCH_TOKENS, host_bytes
from local_runtime.engines.torch_tasks.tokeniser import HubTokeniser
from local_runtime.engines.torch_tasks.weights import load_weights
from local_runtime.kinds import Kind
from local_runtime.lifecycle.memory import memory_now

_DEVICE_BATCH_TOKENS = 8192  # what keeps an accelerator busy


class TorchEncoder(TextEncoder):
    """One embedding or reranking model of a folder of safetensors."""

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        """Check the folder, map the weights, and measure where and how they are best computed."""
        started_ns = time.monotonic_ns()
        taken_before = memory_now()
        try:
            folder = read_folder(Path(spec.path))
        except (ConfigRefused, OSError) as error:
            raise EngineLoadError(str(error)) from error
        config = folder.config
        length = min(spec.context_length or config.context_length, config.context_length)
        threads = [spec.threads] if spec.threads else candidates(usable_cores())
        torch.set_num_threads(threads[-1])
        self._threads_now = threads[-1]
        tokens = HubTokeniser(folder.tokenizer, config.vocab, lower=folder.lower)
        weights = load_weights(folder.weights, config, lambda part: progress(0.8 * part))
        network = Network(config, folder.pooling, weights)
        chosen = self._chosen(network, length, accelerate=spec.gpu_layers != 0)
        self._network = chosen.network
        self._second_begins = tokens.pairs.between if tokens.pairs.second_type else ()
        self._open(
            _intake(tokens, folder, length),
            threads,
            batch_tokens=_DEVICE_BATCH_TOKENS if chosen.on_device else BATCH_TOKENS,
            whole=True,
        )
        self._costs.append(chosen.token_ns)
        progress(1.0)
        return EngineInfo(
            context_length=length,
            sequences_max=BATCH_TEXTS,
            threads=self._tuner.settled,
            load_ms=(time.monotonic_ns() - started_ns) // 1_000_000,
            memory_bytes=self._memory_bytes(memory_now() - taken_before, folder, length),
            device_bytes=torch.cuda.memory_allocated() if chosen.on_device else 0,
            gpu_layers=config.layers if chosen.on_device else 0,
            output_size=0 if folder.kind is Kind.RERANK else config.width,
        )

    def _chosen(self, network: Network, length: int, *, accelerate: bool) -> Choice:
        sample = [[min(100, network.vocab - 1)] * min(16, length)] * 16
        try:
            return choose(network, sample, accelerate=accelerate)
        except (RuntimeError, IndexError) as error:
            reason = str(error)[:200]
            raise EngineLoadError(
                f"the model was loaded, but its first computation failed: {reason}"
            ) from error

    def _memory_bytes(self, taken: int, folder: EncoderFolder, length: int) -> int:
        """What it took, or what it will take with its longest text, if that is more."""
        return max(taken, host_bytes(folder, length)) if taken else 0

    def _compute(self, rows: list[Row]) -> None:
        """Run the batch, and take down what it says of each text."""
        threads = self._threads(sum(row.tokens for row in rows))
        if threads != self._threads_now:
            torch.set_num_threads(threads)
            self._threads_now = threads
        texts = [row.text.tokens for row in rows]
        seconds = [self._second(row) for row in rows]
        found = self._network.run(texts, seconds).numpy()
        for row, pooled in zip(rows, found, strict=True):
            row.text.computed += row.tokens
            self._found(row.text, pooled)

    def _second(self, row: Row) -> int:
        """How many tokens of a pair are its document's, with the mark behind it. No caller's text
        holds the marks between the two."""
        between = list(self._second_begins)
        tokens = row.text.tokens
        if not (between and row.text.work.is_rank):
            return 0
        for at in range(1, len(tokens) - len(between) + 1):
            if tokens[at : at + len(between)] == between:
                return len(tokens) - at - len(between)
        return 0

    def unload(self) -> None:
        del self._network


def _intake(tokens: HubTokeniser, folder: EncoderFolder, length: int) -> Intake:
    """Raises EngineLoadError where pairs are wanted, and the tokenizer does not say how."""
    between, end, _ = tokens.pairs
    is_rank = folder.kind is Kind.RERANK
    if is_rank and (not end or between[: len(end)] != end):
        raise EngineLoadError("tokenizer.json does not say how a query and a document go together")
    return Intake(
        tokens,
        context_length=length,
        size=folder.config.labels if is_rank else folder.config.width,
        is_rank=is_rank,
        pair_ends=end,
        pair_middle=between[len(end) :],
        rank_template=None,
    )
