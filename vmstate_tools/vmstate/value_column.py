"""The pandas column type of field values.

A column of field values holds what fields hold: unsigned and signed 64-bit integers, booleans and bytes, each exact,
in 9 bytes a row.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype, register_extension_dtype, take

from vmstate_tools.vmstate.layout import BOOL, BYTES, SIGNED, UNSIGNED, format_value

MISSING = 4  # a row without a value
TEXT = 5  # only where values are compared: names of types, of machines
_BLOBS = (BYTES, TEXT)


@register_extension_dtype
class ValueDtype(ExtensionDtype):
    """A ValueDtype is the dtype of a column of field values; `vmstate` as a string."""

    name = "vmstate"
    type = object
    kind = "O"
    na_value = None

    @classmethod
    def construct_array_type(cls) -> builtins.type[ValueArray]:
        return ValueArray

    def __from_arrow__(self, array: Any) -> ValueArray:
        parts = [_from_struct(chunk) for chunk in getattr(array, "chunks", [array])]
        return ValueArray._concat_same_type(parts) if parts else ValueArray._from_sequence([])


class ValueArray(ExtensionArray):
    """A ValueArray holds field values: `words` uint64, `kinds` uint8 (of `decode`), and the `blobs` they index."""

    def __init__(
        self, words: npt.NDArray[np.uint64], kinds: npt.NDArray[np.uint8], blobs: Sequence[bytes] = ()
    ) -> None:
        self.words, self.kinds, self.blobs = words, kinds, blobs

    @property
    def dtype(self) -> ValueDtype:
        return ValueDtype()

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.kinds.nbytes + sum(map(len, set(self.blobs)))

    @classmethod
    def _from_sequence(cls, scalars: Iterable[Any], *, dtype: Any = None, copy: bool = False) -> ValueArray:
        words: list[int] = []
        kinds: list[int] = []
        blobs: list[bytes] = []
        for value in scalars:
            word, kind = 0, MISSING
            if isinstance(value, (bool, np.bool_)):
                word, kind = int(value), BOOL
            elif isinstance(value, (bytes, bytearray, memoryview)):
                word, kind = len(blobs), BYTES
                blobs.append(bytes(value))
            elif isinstance(value, str):
                word, kind = len(blobs), TEXT
                blobs.append(value.encode("utf-8", "surrogatepass"))
            elif value is not None and value is not pd.NA and value == value:
                number = int(value)
                word, kind = number & 0xFFFF_FFFF_FFFF_FFFF, SIGNED if number < 0 else UNSIGNED
            words.append(word)
            kinds.append(kind)
        return cls(np.array(words, np.uint64), np.array(kinds, np.uint8), blobs)

    @classmethod
    def _from_factorized(cls, values: Any, original: ValueArray) -> ValueArray:
        return cls._from_sequence(values)

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[ValueArray]) -> ValueArray:
        words: list[Any] = []
        blobs: list[bytes] = []
        for part in to_concat:
            shift = np.where(np.isin(part.kinds, _BLOBS), len(blobs), 0).astype(np.uint64)
            words.append(part.words + shift)
            blobs.extend(part.blobs)
        return cls(np.concatenate(words), np.concatenate([p.kinds for p in to_concat]), blobs)

    def __len__(self) -> int:
        return len(self.words)

    def _scalar(self, word: int, kind: int) -> Any:
        if kind == UNSIGNED or (kind == BOOL and word > 1):
            return word
        if kind == SIGNED:
            return word - (1 << 64) if word >> 63 else word
        if kind == BOOL:
            return bool(word)
        if kind == TEXT:
            return self.blobs[word].decode("utf-8", "surrogatepass")
        return self.blobs[word] if kind == BYTES else None

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, (int, np.integer)):
            return self._scalar(int(self.words[item]), int(self.kinds[item]))
        item = pd.api.indexers.check_array_indexer(self, item)
        return type(self)(self.words[item], self.kinds[item], self.blobs)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, (bytes, str)) or not isinstance(value, Iterable):
            value = [value]
        new = value if isinstance(value, ValueArray) else type(self)._from_sequence(value)
        shift = np.where(np.isin(new.kinds, _BLOBS), len(self.blobs), 0).astype(np.uint64)
        one = len(new) == 1  # numpy puts no array of one at a single place
        self.words[key] = (new.words + shift)[0] if one else new.words + shift
        self.kinds[key] = new.kinds[0] if one else new.kinds
        self.blobs = [*self.blobs, *new.blobs]

    def __iter__(self) -> Any:
        return map(self._scalar, self.words.tolist(), self.kinds.tolist())

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, (pd.Series, pd.Index, pd.DataFrame)):
            return NotImplemented
        if isinstance(other, (list, np.ndarray, ExtensionArray)):
            theirs = other if isinstance(other, ValueArray) else type(self)._from_sequence(other)
        else:
            theirs = type(self)._from_sequence([other])
        numbers = (self.kinds < BYTES) & (theirs.kinds < BYTES) & (self.words == theirs.words)
        negative = (self.kinds == SIGNED) & (self.words >> np.uint64(63) == 1)
        theirs_negative = (theirs.kinds == SIGNED) & (theirs.words >> np.uint64(63) == 1)
        equal = numbers & (negative == theirs_negative)
        both = np.broadcast_to((self.kinds == theirs.kinds) & np.isin(self.kinds, _BLOBS), equal.shape)
        for i in np.flatnonzero(both):
            equal[i] = self[int(i)] == theirs[int(i) if len(theirs) > 1 else 0]
        return equal

    def __ne__(self, other: Any) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else ~equal

    def isna(self) -> npt.NDArray[np.bool_]:
        return self.kinds == MISSING

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> ValueArray:
        words: Any = take(self.words, indices, allow_fill=allow_fill, fill_value=0)
        kinds: Any = take(self.kinds, indices, allow_fill=allow_fill, fill_value=MISSING)
        return type(self)(words, kinds, self.blobs)

    def copy(self) -> ValueArray:
        return type(self)(self.words.copy(), self.kinds.copy(), self.blobs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if dtype is not None and np.dtype(dtype).kind == "u" and (self.kinds == UNSIGNED).all():
            return self.words.astype(dtype)
        out = np.empty(len(self), object)
        out[:] = list(self)
        return out if dtype is None else out.astype(dtype)

    def __arrow_array__(self, type: object = None) -> Any:  # noqa: A002 - pandas names it
        import pyarrow as pa

        number = (self.kinds == UNSIGNED) | ((self.kinds == BOOL) & (self.words > 1))
        columns = [
            pa.array(self.words, mask=~number),
            pa.array(self.words.view(np.int64), mask=self.kinds != SIGNED),
            pa.array(self.words == 1, mask=(self.kinds != BOOL) | number),
        ]
        for kind, of in ((BYTES, pa.large_binary()), (TEXT, pa.large_binary())):
            which = np.flatnonzero(self.kinds == kind)
            blobs = np.full(len(self), None, object)
            blobs[which] = [self.blobs[word] for word in self.words[which].tolist()]
            columns.append(pa.array(blobs, of))
        columns[-1] = columns[-1].cast(pa.large_string())
        missing = self.kinds == MISSING
        return pa.StructArray.from_arrays(columns, _ARROW_NAMES, mask=pa.array(missing))

    def _values_for_argsort(self) -> npt.NDArray[Any]:
        keys = np.empty(len(self), object)
        for i, value in enumerate(self):  # numbers, then bytes, then text
            keys[i] = (
                (2, value) if isinstance(value, str) else (1, value) if isinstance(value, bytes) else (0, value or 0)
            )
        return keys

    def _formatter(self, boxed: bool = False) -> Callable[[Any], str]:
        return format_value


_ARROW_NAMES = ["unsigned", "signed", "bool", "bytes", "text"]


def _from_struct(array: Any) -> ValueArray:
    """Returns the values of one chunk that `ValueArray.__arrow_array__` made, exact in 64 bits."""
    import pyarrow.compute as pc

    words, kinds = np.zeros(len(array), np.uint64), np.full(len(array), MISSING, np.uint8)
    blobs: list[bytes] = []
    for name, kind in zip(_ARROW_NAMES, (UNSIGNED, SIGNED, BOOL, BYTES, TEXT), strict=True):
        column = pc.struct_field(array, name)  # null where the struct is
        which = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        values = column.drop_null()
        kinds[which] = kind
        if kind in _BLOBS:
            words[which] = np.arange(len(blobs), len(blobs) + len(which), dtype=np.uint64)
            found = values.to_pylist()
            blobs += [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in found]
        else:
            words[which] = (
                values.to_numpy(zero_copy_only=False).astype(np.int64 if kind == SIGNED else np.uint64).view(np.uint64)
            )
    return ValueArray(words, kinds, blobs)
