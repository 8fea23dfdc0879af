"""Labels: words of the operator's for what may be sent to an offer. Only the configuration gives
them, never an adapter or a provider, since keys, users and orgs are confined by them.
"""

from app.config import Config

LOCAL = "local"


class ConfiguredLabels:
    """The labels of each provider, and of single models of theirs. The local runtime's models are
    ``local`` by nature."""

    def __init__(self, config: Config) -> None:
        self._of_providers = {each.id: frozenset(each.labels) for each in config.providers}
        self._of_providers["local"] = frozenset({LOCAL})
        self._of_models = {
            (provider.id, model.id): self._of_providers[provider.id] | frozenset(model.labels)
            for provider in config.providers
            for model in provider.models
            if model.labels
        }

    def of(self, provider: str, model: str) -> frozenset[str]:
        """The labels of an offer."""
        own = self._of_models.get((provider, model))
        return self._of_providers.get(provider, frozenset()) if own is None else own
