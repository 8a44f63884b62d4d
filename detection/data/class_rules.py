"""What the user wants done with the classes of a dataset: merge, rename, drop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detection.data.class_names import clean_class_name
from detection.errors import ConfigError, Fault


@dataclass(frozen=True, kw_only=True)
class ClassRules:
    """Every class of the archive may appear in one rule at most; the others stay as they are."""

    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """New name → the classes that become one."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Old name → new name."""
    drop: Sequence[str] = ()
    """Classes whose boxes are left out; their pictures stay."""

    def targets(self, classes: Sequence[str]) -> dict[str, str | None]:
        """Return the new name of every class, None for a dropped one, in the order of `classes`.

        Raises:
            ConfigError: a rule names a class that the dataset does not have, two rules name one, or a new
                name is empty, has space around it, or holds what cannot be shown.
        """
        faults = [*self._unknown(classes), *self._contradictions(classes), *self._unwritable()]
        if faults:
            raise ConfigError(faults)
        targets: dict[str, str | None] = {name: name for name in classes}
        targets |= {old: new for new, olds in self.merge.items() for old in olds}
        targets |= self.rename
        targets |= dict.fromkeys(self.drop)
        return targets

    def _named(self) -> list[tuple[str, str]]:
        """Return pointer and class for every class that a rule names."""
        named = [(f"/classes/merge/{new}", old) for new, olds in self.merge.items() for old in olds]
        named += [(f"/classes/rename/{old}", old) for old in self.rename]
        return named + [("/classes/drop", old) for old in self.drop]

    def _unknown(self, classes: Sequence[str]) -> list[Fault]:
        known, names = ", ".join(classes[:20]), set(classes)
        return [
            Fault(pointer, f"the dataset has no class {old!r}; it has {known}")
            for pointer, old in self._named()
            if old not in names
        ]

    def _contradictions(self, classes: Sequence[str]) -> list[Fault]:
        named = [old for _, old in self._named()]
        faults = [
            Fault("/classes", f"{old!r} appears in more than one rule")
            for old, count in Counter(named).items()
            if count > 1
        ]
        untouched, uses = set(classes) - set(named), Counter(self.rename.values())
        for old, new in self.rename.items():
            if new in untouched or uses[new] > 1 or new in self.merge:
                faults.append(
                    Fault(f"/classes/rename/{old}", f"{new!r} exists already; use `merge` to unite")
                )
        return faults

    def _unwritable(self) -> list[Fault]:
        """Return a fault for every new name that some format could not hold."""
        named = [("/classes/merge", new) for new in self.merge]
        named += [(f"/classes/rename/{old}", new) for old, new in self.rename.items()]
        return [
            Fault(pointer, f"{new!r} cannot be a class name; {clean_class_name(new) or 'class'!r} could")
            for pointer, new in named
            if new != clean_class_name(new) or not new
        ]
