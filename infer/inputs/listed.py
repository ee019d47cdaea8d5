"""One input or a list of inputs: a list gives a list of results, one input gives one result."""

import dataclasses
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from earvae_jax.errors import UserError

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Listed(Generic[Item]):
    """The inputs of a call, one item each.

    Attributes:
      items: the inputs in order.
      what: their name in messages.
      is_list: whether a list or tuple was given, not one thing.
    """

    items: list[Item]
    what: str
    is_list: bool

    @classmethod
    def of(cls, given: Any, what: str, make: Callable[[Any], Item]) -> "Listed[Item]":
        """Applies `make` to the input, or to each item of a list.

        Raises:
          UserError: `make` refused an item, whose place is named, or a list holds numbers or lists.
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
        """The error, after the item's place in the list and, unless it begins so already, `shown`."""
        text = str(error)
        if shown and not text.startswith(f"{shown}:"):
            text = f"{shown}: {text}"
        return UserError(f"{self.what}[{place}]: {text}" if self.is_list else text)

    def answer(self, results: Sequence[Any]) -> Any:
        """The list of results, or the only one."""
        return list(results) if self.is_list else results[0]


_NOT_ARRAYS = (
    "is a {kind}, but a list of {what} holds arrays and paths; make numbers an array with numpy.asarray, and "
    "pass a rate as sample_rate"
)
