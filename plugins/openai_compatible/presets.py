"""All presets, and the one of a server of which nothing is known."""

from plugins.openai_compatible.preset import Preset
from plugins.openai_compatible.presets_clouds import CLOUDS
from plugins.openai_compatible.presets_labs import LABS
from plugins.openai_compatible.presets_own import OWN, ROUTERS

GENERIC = Preset(
    name="openai_compatible",
    title="OpenAI-compatible server",
    needs_key=False,
    developer_role=True,
)
"""Everything is passed on as it is: a row of its own says better."""

PRESETS: tuple[Preset, ...] = (*CLOUDS, *LABS, *ROUTERS, *OWN)
