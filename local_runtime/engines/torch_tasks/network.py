"""The encoders themselves: from token ids to a vector for each text, or a score.

Texts stand one behind the other without padding, so that nothing is computed for nobody; only the
tokens' looking at each other is done by groups of texts, of one length or of about one. Sources:
the papers, and the names and orders of the weights that ``transformers`` writes
(``modeling_bert.py``, ``modeling_roberta.py``, ``modeling_distilbert.py``, ``modeling_mpnet.py``).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from local_runtime.engines.torch_tasks.config import EncoderConfig, Head

Tensor = Any
_FAR = 128  # tokens; MPNet's places further away than that are all alike


class Group(NamedTuple):
    """Texts that look at their own tokens in one go: where the first begins, and their lengths."""

    begin: int
    lengths: Sequence[int]

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def is_even(self) -> bool:
        """Whether all are of one length."""
        return min(self.lengths) == self.longest


def groups_of(lengths: Sequence[int], slack: float) -> list[Group]:
    """Neighbours together, whose lengths must rise: the longest of a group is at most by the part
    ``slack`` longer than its first.
    """
    found: list[Group] = []
    at = 0
    for length in lengths:
        if found and length <= found[-1].lengths[0] * (1 + slack):
            found[-1] = Group(found[-1].begin, [*found[-1].lengths, length])
        else:
            found.append(Group(at, [length]))
        at += length
    return found


class Network:
    """One model on one device, in one precision."""

    def __init__(
        self, config: EncoderConfig, pooling: str, weights: dict[str, Tensor], slack: float = 0.0
    ) -> None:
        """``slack``: see ``groups_of``; each group costs a call, and its unevenness padding."""
        self._config = config
        self._pooling = pooling
        self._weights = weights
        self._slack = slack
        self._near: dict[int, Tensor] = {}
        self.vocab = config.vocab
        self.device = weights["words.weight"].device
        self.dtype = weights["words.weight"].dtype

    def moved(self, device: str, dtype: Any, slack: float) -> "Network":
        """The same model elsewhere, or in another precision."""
        weights = {name: each.to(device, dtype) for name, each in self._weights.items()}
        return Network(self._config, self._pooling, weights, slack)

    def run(self, texts: Sequence[Sequence[int]], seconds: Sequence[int]) -> Tensor:
        """A row for each text, as 32-bit floats on the host: its pooled vector, or its score.

        ``texts`` are token ids, not longer than the model's context. ``seconds``: how many tokens
        of each, at its end, are of the second kind.
        """
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        lengths = [len(texts[at]) for at in order]
        with torch.inference_mode():
            hidden = self._embedded(texts, seconds, order)
            groups = groups_of(lengths, self._slack)
            for layer in range(self._config.layers):
                hidden = self._layer(hidden, layer, groups)
            rows = self._pooled(hidden, lengths)
            if self._config.head is not Head.NONE:
                rows = self._headed(rows)
            back = torch.empty(len(order), dtype=torch.long)
            back[torch.tensor(order)] = torch.arange(len(order))
            return rows.to("cpu", torch.float32)[back]

    def _embedded(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int], order: Sequence[int]
    ) -> Tensor:
        first = self._config.position_first
        ids: list[int] = []
        places: list[int] = []
        types: list[int] = []
        for at in order:
            count = len(texts[at])
            ids += texts[at]
            places += range(first, first + count)
            types += [0] * (count - seconds[at]) + [1] * seconds[at]
        hidden = self._row("words", ids) + self._row("places", places)
        if self._config.types:
            hidden = hidden + self._row("types", types)
        return self._norm(hidden, "norm")

    def _row(self, name: str, numbers: list[int]) -> Tensor:
        index = torch.tensor(numbers, dtype=torch.long, device=self.device)
        return functional.embedding(index, self._weights[f"{name}.weight"])

    def _layer(self, hidden: Tensor, layer: int, groups: Sequence[Group]) -> Tensor:
        seen = self._linear(self._attention(hidden, layer, groups), f"{layer}.o")
        hidden = self._norm(hidden + seen, f"{layer}.norm_1")
        inner = self._active(self._linear(hidden, f"{layer}.up"))
        return self._norm(hidden + self._linear(inner, f"{layer}.down"), f"{layer}.norm_2")

    def _attention(self, hidden: Tensor, layer: int, groups: Sequence[Group]) -> Tensor:
        asked, keys, values = (self._linear(hidden, f"{layer}.{part}") for part in "qkv")
        parts = []
        for group in groups:
            mask = self._near_of(group.longest)
            if group.is_even:
                parts.append(self._look(asked, keys, values, group, mask))
                continue
            there = self._there(group)
            if mask is None:
                mask = there[:, None, None, :]
            else:
                mask = mask.masked_fill(~there[:, None, None, :], -math.inf)
            parts.append(self._look(asked, keys, values, group, mask, there))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _look(
        self,
        asked: Tensor,
        keys: Tensor,
        values: Tensor,
        group: Group,
        mask: Tensor | None,
        there: Tensor | None = None,
    ) -> Tensor:
        """The group's own tokens among themselves; shape (tokens of the group, width)."""
        count, longest, width = len(group.lengths), group.longest, self._config.width
        end = group.begin + sum(group.lengths)

        def heads(rows: Tensor) -> Tensor:
            mine = rows[group.begin : end]
            if there is not None:
                padded = mine.new_zeros(count, longest, width)
                padded[there] = mine
                mine = padded
            return mine.reshape(count, longest, self._config.heads, -1).transpose(1, 2)

        seen = functional.scaled_dot_product_attention(
            heads(asked), heads(keys), heads(values), attn_mask=mask
        )
        seen = seen.transpose(1, 2).reshape(count, longest, width)
        return seen.reshape(-1, width) if there is None else seen[there]

    def _there(self, group: Group) -> Tensor:
        """Which places of a padded group are tokens; shape (texts, longest)."""
        lengths = torch.tensor(group.lengths, device=self.device)
        return torch.arange(group.longest, device=self.device) < lengths[:, None]

    def _near_of(self, length: int) -> Tensor | None:
        """MPNet's: how much each token minds another by how far it is, (1, heads, n, n)."""
        if not self._config.buckets:
            return None
        known = self._near.get(length)
        if known is None:
            self._near.clear()  # one size at a time: it grows by the square
            places = torch.arange(length, device=self.device)
            bucket = _buckets(places[:, None] - places[None, :], self._config.buckets)
            values = functional.embedding(bucket, self._weights["near.weight"])
            known = self._near[length] = values.permute(2, 0, 1)[None].contiguous()
        return known

    def _pooled(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """One row for each text."""
        rows = []
        for text in hidden.split(list(lengths)):
            if self._pooling == "mean":
                rows.append(text.float().mean(dim=0))
            elif self._pooling == "max":
                rows.append(text.amax(dim=0))
            else:
                rows.append(text[-1 if self._pooling == "last" else 0])
        return torch.stack(rows)

    def _headed(self, rows: Tensor) -> Tensor:
        inner = self._linear(rows, "head_1")
        inner = inner.relu() if self._config.head is Head.DISTILBERT else inner.tanh()
        return self._linear(inner, "head_2")

    def _active(self, inner: Tensor) -> Tensor:
        if self._config.activation == "relu":
            return functional.relu(inner)
        how = "tanh" if self._config.activation == "gelu_tanh" else "none"
        return functional.gelu(inner, approximate=how)

    def _linear(self, rows: Tensor, name: str) -> Tensor:
        return functional.linear(
            rows, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        )

    def _norm(self, rows: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            rows,
            (self._config.width,),
            self._weights[f"{name}.weight"],
            self._weights[f"{name}.bias"],
            self._config.epsilon,
        )


def _buckets(back: Tensor, buckets: int) -> Tensor:
    """T5's buckets of distances: ``back`` is by how much a token stands behind the other."""
    half = buckets // 2
    exact = half // 2
    far = back.abs()
    grown = torch.log(far.float().clamp(min=1) / exact) / math.log(_FAR / exact)
    large = (exact + (grown * (half - exact)).long()).clamp(max=half - 1)
    return (back < 0).long() * half + torch.where(far < exact, far, large)
