"""Tables of numbers from `.csv`, `.npy` and `.npz` files. Pickled content is never loaded."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfp_flowvae.errors import UserError, first_line, nearest

SUFFIXES = (".csv", ".npy", ".npz")
# How many steps of float32, near its largest value, a column must spread over.
_FEWEST_STEPS = 256


@dataclass(frozen=True)
class Table:
    """Named columns of numbers.

    Attributes:
      names: The names of the columns.
      rows: `[N, D]`, float64.
    """

    names: tuple[str, ...]
    rows: np.ndarray

    def select(self, names: Sequence[str]) -> Table:
        """Returns the table of some columns, in the order of `names`.

        Args:
          names: Names of columns, or their numbers from 0 where no column has that name.

        Raises:
          UserError: If there is no such column, or one is named twice.
        """
        places = [self._place(name) for name in names]
        for name, place in zip(names, places, strict=True):
            if places.count(place) > 1:
                raise UserError(f"Column {name!r} is named twice; name each column once.")
        return Table(tuple(self.names[i] for i in places), self.rows[:, places])

    def without(self, names: Sequence[str]) -> Table:
        """Returns the table of all columns but those of a selection."""
        return self.select([name for name in self.names if name not in names])

    def _place(self, name: str) -> int:
        if name in self.names:
            return self.names.index(name)
        if re.fullmatch(r"\d+", name) and int(name) < len(self.names):
            return int(name)
        raise UserError(
            f"There is no column {name!r}; the columns are {', '.join(self.names)}, or their "
            f"numbers from 0 to {len(self.names) - 1}.{nearest(name, self.names)}"
        )


def load_table(path: Path) -> Table:
    """Reads a table.

    Args:
      path: A `.csv` file, with the names of the columns in its first line or without; a `.npy` file
        with an array `[N, D]`; or a `.npz` file with one such array.

    Returns:
      The table; without names the columns are called `x0`, `x1`, and so on.

    Raises:
      UserError: If the file cannot be read, holds something other than a table of numbers, or a
        value is missing or not finite; the message names the column.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"A table must be a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file. "
            f"Received: {str(path)!r}."
        )
    if not path.is_file():
        raise UserError(f"There is no file {str(path)!r}.")
    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_array(path)
    _check(table, path)
    return table


def _read_csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = next(csv.reader(file, skipinitialspace=True), None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} cannot be read as CSV: {first_line(error)}.") from error
    if not first:
        raise UserError(f"{str(path)!r} is empty; it must hold a row of numbers in each line.")
    named = not all(map(_is_number, first))
    names = tuple(name.strip() for name in first) if named else _numbered(len(first))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{str(path)!r} has two columns called {twice!r}; rename one of them.")
    try:
        rows = np.loadtxt(
            path, delimiter=",", skiprows=int(named), ndmin=2, quotechar='"', encoding="utf-8-sig",
            comments=None,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        raise UserError(_what_is_wrong(path, names, named, error)) from error
    return Table(names, rows.reshape(-1, len(names)))


def _what_is_wrong(path: Path, names: Sequence[str], named: bool, error: Exception) -> str:
    """Finds the line and the column that NumPy could not read."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for row in reader:
            if (named and reader.line_num == 1) or not row:
                continue
            where = f"line {reader.line_num} of {str(path)!r}"
            if len(row) != len(names):
                return f"Each line must have {len(names)} values. Received: {len(row)} in {where}."
            for name, value in zip(names, row, strict=True):
                if not _is_number(value):
                    received = repr(value) if value.strip() else "no value"
                    return (
                        f"Column {name!r} must hold numbers; leave the column out, or replace "
                        f"the text by numbers. Received: {received} in {where}."
                    )
    return f"{str(path)!r} cannot be read as CSV: {first_line(error)}."


def _read_array(path: Path) -> Table:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                arrays = {name: content[name] for name in content.files}
        else:
            arrays = {"the array": content}
    # A damaged file makes NumPy and zipfile raise a dozen kinds of errors.
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{str(path)!r} cannot be read as NumPy arrays: {reason}.") from error
    if len(arrays) != 1:
        raise UserError(
            f"{str(path)!r} must hold one array [N, D]. "
            f"Received: {', '.join(map(repr, arrays)) or 'no array'}."
        )
    (array,) = arrays.values()
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
        raise UserError(
            f"{str(path)!r} must hold an array [N, D] of numbers. "
            f"Received: shape {array.shape} of {array.dtype}."
        )
    rows = array.reshape(len(array), -1).astype(np.float64)
    return Table(_numbered(rows.shape[1]), rows)


def _check(table: Table, path: Path) -> None:
    """Checks that every column has finite numbers that differ, and that float32 can tell apart."""
    if len(table.rows) < 2:
        raise UserError(f"{str(path)!r} must hold two rows or more. Received: {len(table.rows)}.")
    for name, column in zip(table.names, table.rows.T, strict=True):
        broken = np.flatnonzero(~np.isfinite(column))
        if broken.size:
            raise UserError(
                f"Column {name!r} must hold finite numbers; drop these rows or fill them in. "
                f"Received: {column[broken[0]]} in row {broken[0]}, and in {broken.size} in all."
            )
        if np.all(column == column[0]):
            raise UserError(
                f"Column {name!r} is {column[0]:g} in every row, and so has no density; leave it "
                "out."
            )
        largest, spread = float(np.abs(column).max()), float(np.std(column))
        step = float(np.finfo(np.float32).eps) * largest
        if largest > float(np.finfo(np.float32).max) or spread < _FEWEST_STEPS * step:
            raise UserError(
                f"Column {name!r} cannot be told apart in float32; subtract its mean and divide "
                f"it by its spread first. Received: values near {largest:g} that spread by "
                f"{spread:.3g}."
            )


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(count))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
