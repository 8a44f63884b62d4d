"""How each model served last: so it goes on while the shape that a plan has pinned to it is loaded."""

from __future__ import annotations

from collections import OrderedDict

from app.detect.wire import ServedModel

MOST_MODELS = 100


class Formers:
    """Remembers each model as the last request had it that was served by it."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, ServedModel] = OrderedDict()

    def find(self, model: ServedModel) -> ServedModel | None:
        """Return the model as it served before; None when it never did."""
        return self._last.get(model.id)

    def all(self) -> tuple[ServedModel, ...]:
        """Return all that served lately."""
        return tuple(self._last.values())

    def note(self, model: ServedModel) -> None:
        """Note that the model is in memory in the shape that it has here."""
        self._last[model.id] = model
        self._last.move_to_end(model.id)
        if len(self._last) > MOST_MODELS:
            self._last.popitem(last=False)
