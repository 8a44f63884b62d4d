"""Who may answer for a name whose model must be loaded first: the model that answered to it last."""

from __future__ import annotations

from collections import OrderedDict

from app.detect.wire import ServedModel

MOST_NAMES = 100

_Name = str | None
"""An alias as it was asked for; None asks for the default."""


class StandIns:
    """Remembers, for each name, the model that last answered to it."""

    def __init__(self) -> None:
        self._last: OrderedDict[_Name, ServedModel] = OrderedDict()

    def find(self, name: _Name, model: ServedModel, *, names_classes: bool) -> ServedModel | None:
        """Return who may look in place of `model`; None when nobody may.

        Args:
            names_classes: the request asks for certain classes, which another model may number differently.
        """
        last = self._last.get(name)
        if last is None or last.id == model.id or name == model.id:
            return None
        if names_classes and last.record.classes != model.record.classes:
            return None
        return last

    def note(self, name: _Name, model: ServedModel) -> None:
        """Note that this model has answered to the name; for its id nobody ever stands in."""
        if name == model.id:
            return
        self._last[name] = model
        self._last.move_to_end(name)
        if len(self._last) > MOST_NAMES:
            self._last.popitem(last=False)
