"""The shipped plugins, imported by name: a frozen binary misses what is imported by string."""

from plugins.anthropic.plugin import PLUGIN as ANTHROPIC
from plugins.bedrock.plugin import PLUGIN as BEDROCK
from plugins.black_forest_labs.plugin import PLUGIN as BLACK_FOREST_LABS
from plugins.contract import Plugin
from plugins.echo.plugin import PLUGIN as ECHO
from plugins.fal.plugin import PLUGIN as FAL
from plugins.gemini.plugin import PLUGIN as GEMINI
from plugins.hf_inference.plugin import PLUGIN as HF_INFERENCE
from plugins.openai_compatible.plugin import PLUGIN as OPENAI_COMPATIBLE
from plugins.openai_compatible.plugin import PRESET_PLUGINS
from plugins.replicate.plugin import PLUGIN as REPLICATE
from plugins.wavespeed.plugin import PLUGIN as WAVESPEED

BUILTIN: tuple[Plugin, ...] = (
    ANTHROPIC,
    BEDROCK,
    BLACK_FOREST_LABS,
    ECHO,
    FAL,
    GEMINI,
    HF_INFERENCE,
    OPENAI_COMPATIBLE,
    *PRESET_PLUGINS,
    REPLICATE,
    WAVESPEED,
)
