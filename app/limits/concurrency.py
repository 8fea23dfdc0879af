"""In-flight caps: how many calls run at once, so that overload is shed and not queued."""

from collections.abc import Callable

from app.errors import CallError, ShuttingDown, Unavailable


class InFlight:
    """Counts running calls; refuses past the cap, and every new one while draining or while
    ``refusal`` gives a reason to."""

    __slots__ = ("calls_max", "draining", "refusal", "running")

    def __init__(
        self, calls_max: int, refusal: Callable[[], CallError | None] = lambda: None
    ) -> None:
        self.calls_max = calls_max
        self.refusal = refusal
        self.running = 0
        self.draining = False

    def enter(self) -> None:
        """Count one call in, or raise Unavailable with a Retry-After."""
        if self.draining:
            raise ShuttingDown
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        if self.running >= self.calls_max:
            raise Unavailable(
                f"{self.running} calls are running already, which is this server's limit. "
                "Try again shortly.",
                code="overloaded",
                retry_after_s=1,
            )
        self.running += 1

    def leave(self) -> None:
        """Count one call out."""
        self.running -= 1
