"""How far a long step is: the line that it logs, and when it is time for one.

`wsss status` reads these lines back from the logs, so that they are written in one place, here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST, AGAIN = 2.0, 30.0
"""Seconds until the first line, and from one to the next."""

_LINE = re.compile(r"(\w+) (\d+)/(\d+)  (\d+\.\d+) s/\1  (\d+) s left")


@dataclass(frozen=True)
class Pace:
    """How far a step is.

    Attributes
    ----------
    unit
        What is counted: "step" or "image".
    done, total
        How many are done, of how many. What an earlier attempt had done may count in both or in neither.
    seconds
        Mean time of one.

    Examples
    --------
    >>> str(Pace("image", 12, 128, 2.0))
    'image 12/128  2.00 s/image  232 s left'
    >>> read_pace("10:15:00 image 12/128  2.00 s/image  232 s left").left
    232.0
    """

    unit: str
    done: int
    total: int
    seconds: float

    @property
    def left(self) -> float:
        """Seconds until all are done, at this pace."""
        return self.seconds * (self.total - self.done)

    def __str__(self) -> str:
        return f"{self.unit} {self.done}/{self.total}  {self.seconds:.2f} s/{self.unit}  {self.left:.0f} s left"


def read_pace(text: str) -> Pace | None:
    """The last pace that a log tells; None if it tells none."""
    told = _LINE.findall(text)
    if not told:
        return None
    unit, done, total, seconds, _ = told[-1]
    return Pace(unit, int(done), int(total), float(seconds))


@dataclass
class Clock:
    """Tells a loop when it is time to log its pace: after `FIRST` seconds, then every `AGAIN` seconds.

    Attributes
    ----------
    unit, total
        As for `Pace`.
    start
        How many were done before this loop began.
    now
        Seconds that have passed since some moment.

    Examples
    --------
    >>> seconds = iter([0.0, 1.0, 4.0, 33.0, 34.0])
    >>> clock = Clock("image", 4, now=lambda: next(seconds))
    >>> [str(pace) if (pace := clock.pace(done)) else None for done in (1, 2, 3, 4)]
    [None, 'image 2/4  2.00 s/image  4 s left', None, 'image 4/4  8.50 s/image  0 s left']
    """

    unit: str
    total: int
    start: int = 0
    now: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _due: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.now()
        self._due = self._began + FIRST

    def pace(self, done: int, *, last: bool = False) -> Pace | None:
        """The pace after so many of the total, if it is time to tell it.

        Parameters
        ----------
        last
            It is always time.
        """
        now = self.now()
        if now < self._due and not last:
            return None
        self._due = now + AGAIN
        return Pace(self.unit, done, self.total, (now - self._began) / max(1, done - self.start))
