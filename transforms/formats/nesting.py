"""Whether deeply nested JSON can be read, told the same way from wherever it is asked. It knows no format."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def on_free_stack(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`; if the stack runs out, once more in a thread, whose stack is empty.

    Python counts the levels of JSON together with the calls it is in, and a runner is in more of them than the plan was: without this a row
    could be read when it is planned and not when it is summarized. Raises RecursionError for what is too deep for an empty stack.
    """
    try:
        return function(*args, **kwargs)
    except RecursionError:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function, *args, **kwargs).result()
