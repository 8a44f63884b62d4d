"""Which models are held when several API processes say so: all that any of them has named."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from app.detect.wire import Hold, ServedModel


class Holds:
    """Remembers what each client has named last.

    Processes learn of a moved alias one after the other: none of them must take from memory what another one
    will ask for.
    """

    def __init__(self, hold: Callable[[Sequence[ServedModel], Sequence[ServedModel]], object]) -> None:
        """Begin with nothing.

        Args:
            hold: called with all models to be held, and all that are only expected, whenever they may have
                changed.
        """
        self._hold = hold
        self._named: dict[Hashable, Hold] = {}
        self._gone: set[Hashable] = set()

    def name(self, client: Hashable, named: Hold) -> None:
        """Hold these for a client, instead of what it has named before."""
        self._named[client] = named
        self._drop_gone()

    def forget(self, client: Hashable) -> None:
        """Hold nothing any more for a client that left; the last one may only be starting anew."""
        if client in self._named:
            self._gone.add(client)
            if self._gone < self._named.keys():
                self._drop_gone()

    def _drop_gone(self) -> None:
        for client in self._gone:
            del self._named[client]
        self._gone.clear()
        named = self._named.values()
        self._hold(
            _each_once(model for each in named for model in each.models),
            _each_once(model for each in named for model in each.expected),
        )


def _each_once(models: Iterable[ServedModel]) -> list[ServedModel]:
    return list({(model.id, model.shape): model for model in models}.values())
