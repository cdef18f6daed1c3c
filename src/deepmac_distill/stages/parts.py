"""Parts of a stage that units of work leave: tables in a folder, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepmac_distill.dataset.parquet import READING_FAILS
from deepmac_distill.dataset.row_batches import rows_of
from deepmac_distill.errors import DataError
from deepmac_distill.files import is_sealed, written_sealed

MadeOf = Mapping[str, Any]  # JSON values: what a part holds, and with what that differs elsewhere
_MADE_OF = b"deepmac_distill.made_of"


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of some units in a folder."""

    folder: Path

    def at(self, kind: str, unit: int) -> Path:
        """Where the part of one kind is that a unit leaves."""
        return self.folder / f"{kind}-{unit:06d}.parquet"

    def write(self, kind: str, unit: int, table: pa.Table, made_of: MadeOf) -> None:
        """Keep a table until all units are there."""
        table = table.combine_chunks().replace_schema_metadata({_MADE_OF: _words(made_of)})
        with written_sealed(self.at(kind, unit)) as aside:
            pq.write_table(table, aside, compression="zstd", write_page_checksum=True)

    def read(self, kind: str, unit: int, made_of: MadeOf) -> pa.Table:
        """The table of a unit.

        Raises:
            DataError: it is damaged, or was made of something else.
        """
        path = self.at(kind, unit)
        if not is_sealed(path):
            raise DataError(f"{path}: cannot be read: its bytes are not those that were written")
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = rows_of(path, file)
        except READING_FAILS as error:
            raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
        held = (table.schema.metadata or {}).get(_MADE_OF, b"{}")
        if held != _words(made_of):
            got, expected = (text.decode(errors="replace") for text in (held, _words(made_of)))
            raise DataError(f"{path}: holds {got}, expected {expected}")
        return table.replace_schema_metadata()

    def holds(self, kinds: Iterable[str], unit: int, made_of: MadeOf, note: Callable[[str], None]) -> bool:
        """Whether all parts of a unit are there; one that cannot be used is noted."""
        try:
            for kind in kinds:
                if not self.at(kind, unit).exists():
                    return False
                self.read(kind, unit, made_of)
        except DataError as error:
            note(f"{error}; it is made again")
            return False
        return True


def _words(made_of: MadeOf) -> bytes:
    return json.dumps(made_of, sort_keys=True).encode()
