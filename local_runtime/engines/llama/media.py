"""A projector, and what it has read: from bytes to views of a prompt, and from those to cells.

The numbers that stand for a picture's cells are the same for the same bytes, and never given to
others: so prompts that begin with the same picture begin with the same tokens, and share cells as
any others do. What the projector made of a picture is kept as well, the least recently used going
first: it costs more than all the rest, and the next turn of a conversation brings it again.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.native import Context
from local_runtime.engines.llama.native_media import Projector, Slice, Vectors
from local_runtime.engines.llama.pictures import BadPicture, examine
from local_runtime.engines.llama.views import Read, View, close

PICTURES_MAX = 32
# All of a request together. Decoding them holds everybody up, for about a second.
PIXELS_MAX = 100_000_000
VECTOR_BYTES_MAX = 128 * 1024 * 1024
_SLICES_REMEMBERED = 65_536
_PICTURES_REMEMBERED = 1024
_BLANK_SIDE = 224

Pieces = list[list[int] | Slice]
"""What libmtmd makes of a picture: tokens of text, and slices."""


class PictureReader:
    """Reads pictures for one model. ``batch_tokens`` is what llama.cpp computes at once."""

    def __init__(self, projector: Projector, *, batch_tokens: int) -> None:
        self._projector = projector
        self._batch_tokens = batch_tokens
        self._first_tokens: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._next_token = -1
        self._vectors: OrderedDict[int, Vectors] = OrderedDict()
        self._outlines: OrderedDict[bytes, Pieces] = OrderedDict()
        self._vector_bytes = 0
        self._token_ns = self._calibrate()

    def _calibrate(self) -> int:
        """What encoding takes for each cell, measured on a grey square."""
        slowest_ns = 1
        for part in self._projector.blank(_BLANK_SIDE):
            if isinstance(part, Slice):
                begun_ns = time.monotonic_ns()
                self._projector.encode(part)
                slowest_ns = max(slowest_ns, (time.monotonic_ns() - begun_ns) // part.tokens)
                part.close()
        return slowest_ns

    def read(self, media: Sequence[bytes], places: Sequence[str]) -> list[Read]:
        """All pictures of a request. ``places`` say where each stands, and RequestRefused names
        that."""
        if len(media) > PICTURES_MAX:
            message = f"these are {len(media)} pictures, and at most {PICTURES_MAX} are read."
            raise _refused(places[PICTURES_MAX], message)
        pixels = 0
        found: list[Read] = []
        try:
            for data, place in zip(media, places, strict=True):
                try:
                    key = hashlib.sha256(data).digest()
                    again = self._again(key)
                    if again is not None:
                        found.append(again)
                        continue
                    picture = examine(data)
                    pixels += picture.width * picture.height
                    if pixels > PIXELS_MAX:
                        raise BadPicture("all pictures together are too large. Send smaller ones.")
                    found.append(self._read(key, data))
                except BadPicture as error:
                    raise _refused(place, str(error)) from error
        except RequestRefused:
            close(found)
            raise
        return found

    def _again(self, key: bytes) -> Read | None:
        """A picture of which all is known, so that its pixels are not needed: for the next turns of
        a conversation."""
        pieces = self._outlines.get(key)
        if pieces is None:
            return None
        found: Read = []
        for number, piece in enumerate(pieces):
            if isinstance(piece, list):
                found += piece
                continue
            first = self._first_token(key, number, piece.tokens)
            vectors = self._vectors.get(first)
            if vectors is None:
                close([found])
                return None
            found.append(View(Slice(piece.chunk, vectors), 0, first))
        self._outlines.move_to_end(key)
        return found

    def _remember(self, key: bytes, pieces: Pieces) -> None:
        self._outlines[key] = [
            piece.outline() if isinstance(piece, Slice) else piece for piece in pieces
        ]
        if len(self._outlines) > _PICTURES_REMEMBERED:
            _free(self._outlines.popitem(last=False)[1])

    def _read(self, key: bytes, data: bytes) -> Read:
        found: Read = []
        pieces = self._projector.read(data)
        for number, part in enumerate(pieces):
            if isinstance(part, list):
                found += part
            else:
                found.append(View(part, 0, self._first_token(key, number, part.tokens)))
        longest = max((each.part.tokens for each in found if isinstance(each, View)), default=0)
        if self._projector.whole and longest > self._batch_tokens:
            close([found])
            raise BadPicture(f"it is {longest} tokens long, and {self._batch_tokens} can be read.")
        if key not in self._outlines:
            self._remember(key, pieces)
        return found

    def _first_token(self, key: bytes, number: int, tokens: int) -> int:
        """What stands for the first cell of a picture's slice."""
        name = (key, number)
        first = self._first_tokens.get(name)
        if first is None:
            first = self._first_tokens[name] = self._next_token
            self._next_token -= tokens
            if len(self._first_tokens) > _SLICES_REMEMBERED:
                self._first_tokens.popitem(last=False)
        self._first_tokens.move_to_end(name)
        return first

    def encoding_ns(self, view: View) -> int:
        """A guess of what ``encode`` will take."""
        return self._token_ns * view.part.tokens

    def known(self, view: View) -> Vectors | None:
        """What the projector made of it, where that is still kept."""
        assert isinstance(view.part, Slice)
        found = self._vectors.get(view.first_token)
        if found is not None:
            self._vectors.move_to_end(view.first_token)
        return found if found is not None else view.part.vectors

    def encode(self, view: View) -> None:
        """Let the projector read it, in one go. Raises BadPicture."""
        assert isinstance(view.part, Slice)
        begun_ns = time.monotonic_ns()
        vectors = self._projector.encode(view.part)
        took_ns = (time.monotonic_ns() - begun_ns) // view.part.tokens
        self._token_ns = max(1, (self._token_ns + took_ns) // 2)
        self._vectors[view.first_token] = vectors
        self._vector_bytes += vectors.nbytes
        while self._vector_bytes > VECTOR_BYTES_MAX and len(self._vectors) > 1:
            _, gone = self._vectors.popitem(last=False)
            self._vector_bytes -= gone.nbytes

    def cells_at_once(self, left: int, room: int) -> int:
        """How many of the ``left`` cells of a view are computed in a step with so much ``room``:
        all of them for models whose pictures see themselves in both directions."""
        return left if self._projector.whole else min(left, room, self._batch_tokens)

    def decode(
        self, context: Context, view: View, *, begin: int, count: int, position: int, sequence: int
    ) -> None:
        """Compute ``count`` cells of a view from its ``begin``-th on, in a sequence where the view
        stands at ``position``. It must be ``known``. Raises RuntimeError where llama.cpp fails.
        """
        assert isinstance(view.part, Slice)
        vectors = self.known(view)
        assert vectors is not None
        result = self._projector.decode(
            context,
            view.part,
            vectors[begin : begin + count],
            begin=begin,
            position=position,
            sequence=sequence,
        )
        if result != 0:
            raise RuntimeError(f"llama_decode returned {result} for {count} cells of a picture")

    def close(self) -> None:
        self._vectors.clear()
        for pieces in self._outlines.values():
            _free(pieces)
        self._outlines.clear()
        self._projector.close()


def _free(pieces: Pieces) -> None:
    for piece in pieces:
        if isinstance(piece, Slice):
            piece.close()


def _refused(place: str, message: str) -> RequestRefused:
    return RequestRefused(f"{place}: {message}", param="messages")
