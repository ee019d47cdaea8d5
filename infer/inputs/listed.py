"""One thing or a list of them: the answer has the form of what was given."""

import dataclasses
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from earvae_jax.errors import UserError

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Listed(Generic[Item]):
    """What was given, an item for each piece.

    Attributes:
      items: in order.
      what: names them in messages.
      is_list: whether a list or tuple was given, not one thing.
    """

    items: list[Item]
    what: str
    is_list: bool

    @classmethod
    def of(cls, given: Any, what: str, make: Callable[[Any], Item]) -> "Listed[Item]":
        """`make` of what was given, or of all that the list holds.

        Raises:
          UserError: what `make` raises, with the item's place; numbers and lists in the list.
        """
        is_list = isinstance(given, (list, tuple))
        listed = cls([], what, is_list)
        for place, one in enumerate(given if is_list else [given]):
            try:
                if is_list and isinstance(one, (numbers.Number, list, tuple)):
                    raise UserError(_NOT_ARRAYS.format(what=what, kind=type(one).__name__))
                listed.items.append(make(one))
            except UserError as error:
                raise listed.explained(place, error) from None
        return listed

    def explained(self, place: int, error: UserError, shown: str = "") -> UserError:
        """The error with the item's place in the list, and what is `shown` where it does not begin so."""
        text = str(error)
        if shown and not text.startswith(f"{shown}:"):
            text = f"{shown}: {text}"
        return UserError(f"{self.what}[{place}]: {text}" if self.is_list else text)

    def answer(self, results: Sequence[Any]) -> Any:
        """The list of results, or the only one."""
        return list(results) if self.is_list else results[0]


_NOT_ARRAYS = (
    "a {kind}, where a list of {what} holds arrays and paths; numbers become an array by numpy.asarray, and "
    "a rate is passed as sample_rate"
)
