"""Studies of the optimizer in SQLite: made, resumed, refused if they were made of something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DatabaseError

from mmlab.core.errors import LakeError, UsageError
from mmlab.grid.space import Space
from mmlab.grid.trial import Bench, refuse_other
from mmlab.store.locks import Lock

FINGERPRINT = "made of"


@dataclass(frozen=True)
class Study:
    """Trials of one name in one file. Only finished trials are ever written, each batch of them at once."""

    path: Path
    name: str
    stored: optuna.Study

    @property
    def trials(self) -> list[FrozenTrial]:
        """Those that are kept, in order."""
        return self.stored.get_trials(deepcopy=False)

    def keep(self, trials: Sequence[FrozenTrial]) -> None:
        """Add finished trials."""
        self.stored.add_trials(trials)


@contextmanager
def opened(path: Path, name: str, bench: Bench, space: Space) -> Iterator[Study]:
    """A study, new or resumed, that nobody else writes to meanwhile.

    Raises UsageError for a name that is taken by a study of other data, windows, space or objective, or at work in
    another process; LakeError for a file that is no database.
    """
    if not name:
        raise UsageError("--study-name is empty", remedy="give a name; the same name later adds trials")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Lock(path.with_name(f".{path.name}.{quote(name, safe='')}.lock"), f"study {name}"):
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
        except DatabaseError as error:
            raise LakeError(
                f"{path} is no database of studies: {error.orig}", remedy="move it away, or give another --storage"
            ) from None
        try:
            stored = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            own = bench.fingerprint(space)
            kept = stored.user_attrs.get(FINGERPRINT)
            if kept is not None or stored.get_trials(deepcopy=False):
                refuse_other(kept or {}, own, name)
            else:
                stored.set_user_attr(FINGERPRINT, own)
            yield Study(path, name, stored)
        finally:
            storage.remove_session()
            storage.engine.dispose()
