"""Reading pictures between the steps that read and write text.

A picture cannot be in a batch with tokens: its cells come as vectors. So a prompt is read up to a
picture, then the projector reads that (one step, which cannot be divided), then its cells are
computed (steps as long as those for text), then the text goes on. While others have something to
do every other step is theirs.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.cells import Cells
from local_runtime.engines.llama.native import Context, Model
from local_runtime.engines.llama.scheduler import CHUNK_NS_BESIDE_OUTPUT, CHUNK_TOKENS_MIN, in_turn
from local_runtime.engines.llama.sizing import Size
from local_runtime.engines.llama.slots import Sequence, Work
from local_runtime.engines.llama.views import View
from local_runtime.store.companions import check_projector
from local_runtime.store.gguf import GgufError, read_header

if TYPE_CHECKING:  # libmtmd is loaded only where a projector is
    from local_runtime.engines.llama.media import PictureReader


@dataclass(frozen=True, slots=True)
class Sight:
    """What to do next about a picture: compute ``cells`` of it, or, with none, let the projector
    read it."""

    work: Work
    sequence: Sequence
    view: View
    cells: int
    expected_ns: int


class Looking:
    """Takes pictures into sequences, a sight at a time."""

    def __init__(self, reader: "PictureReader", context: Context, cells: Cells) -> None:
        self._reader = reader
        self._context = context
        self._cells = cells
        self._looked_last = False

    def next(
        self, running: SequenceOf[Work], adapter: str, forecast: Forecast, *, others: bool
    ) -> Sight | None:
        """Whose picture this step is for, if it is for one; ``others`` have text to compute."""
        found = None
        if not (others and self._looked_last):
            works = [work for work in running if work.adapter == adapter and len(work.views)]
            found = next(filter(None, (self._sight(w, forecast) for w in in_turn(works))), None)
        self._looked_last = found is not None
        return found

    def _sight(self, work: Work, forecast: Forecast) -> Sight | None:
        for sequence in work.live[:1]:  # the first one reads the prompt, for all of them
            view = work.views.at(sequence.computed)
            if view is None or sequence.follows is not None:
                continue
            if self._reader.known(view) is None:
                return Sight(work, sequence, view, 0, self._reader.encoding_ns(view))
            room = max(CHUNK_TOKENS_MIN, forecast.prompt_tokens_within(CHUNK_NS_BESIDE_OUTPUT))
            cells = self._reader.cells_at_once(view.end - sequence.computed, room)
            return Sight(work, sequence, view, cells, cells * forecast.prompt_token_ns)
        return None

    def look(self, sight: Sight) -> None:
        """Do it. Raises BadPicture where the projector fails."""
        sequence, view = sight.sequence, sight.view
        if not sight.cells:
            self._reader.encode(view)
            return
        assert sequence.slot is not None
        self._reader.decode(
            self._context,
            view,
            begin=sequence.computed - view.begin,
            count=sight.cells,
            position=sequence.position(view.begin),
            sequence=sequence.slot,
        )
        sequence.computed += sight.cells
        sequence.path = self._cells.extend(sequence.path, sight.cells)

    def close(self) -> None:
        self._reader.close()


def reader_of(path: str, model: Model, size: Size) -> "PictureReader | None":
    """What reads pictures with the projector in a file; None where the path is empty. Raises
    EngineLoadError."""
    if not path:
        return None
    from local_runtime.engines.llama.media import PictureReader
    from local_runtime.engines.llama.native_media import Projector

    try:
        check_projector(read_header(Path(path)))
    except (GgufError, OSError) as error:
        raise EngineLoadError(f"the projector: {error}") from error
    projector = Projector(path, model, threads=size.threads[-1])
    return PictureReader(projector, batch_tokens=size.batch_tokens)
