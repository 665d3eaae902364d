"""Runs one actor at a time, and keeps the simulated time.

An actor is a greenlet: a lane, or a write to the sinks that a lane waits for. It may lose its turn wherever it calls
`pause`. It loses its turn when it waits (`until`, `sleep`). The schedule picks the next actor. No actor has a right to
a turn, so an actor that is never picked behaves like a frozen one.

Time passes only when a sleeping actor is picked, or through an accident. If much time passes, requests that are on
their way arrive first, because a network does not hold a request for a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Event
from typing import Protocol, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from syncer.pacing import SystemTime
from tests.simulation.choices import Choices

T = TypeVar("T")

REQUEST_LIVES = 15.0
"""Seconds after which a started request has reached the sink, or never will. A world may have another time."""
_TURN_TAKES = 0.001
_LOSES_TURN = 60  # of 256


class Owner(Protocol):
    """The process of an actor."""

    dead: bool

    @property
    def zombie(self) -> bool:
        """Whether its partitions were assigned to other processes, and it does not know."""
        ...


class Actor:
    """One thread of a process.

    ready: returns whether the event that it waits for has happened. None: it waits for no event.
    wakes: when its sleep ends.
    """

    __slots__ = ("due", "frozen", "greenlet", "name", "process", "ready", "sent", "wakes", "writes")

    def __init__(self, name: str, process: Owner, run: Callable[[], None], hub: greenlet) -> None:
        self.name, self.process = name, process
        self.greenlet = greenlet(run, hub)
        self.ready: Callable[[], bool] | None = None
        self.wakes = 0.0
        self.writes = False
        """Whether it is a write to the sinks, not a lane."""
        self.due: float | None = None
        """For a write: the time by which it has arrived."""
        self.sent = False
        """For a write: whether the request has left the process."""
        self.frozen = False
        """Whether it gets no turn. Its requests may still arrive."""

    def runnable(self) -> bool:
        return not self.frozen and (self.ready is None or self.ready())


class Scheduler:
    """All actors of a world."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.now = 0.0
        self.request_lives = REQUEST_LIVES
        self.oversleeps = False
        """Whether long sleeps last longer. In the calm end, exact times do not matter."""
        self.actors: list[Actor] = []
        self._killing = False
        self._hub = getcurrent()
        self.current: Actor

    # -- for the actors ---------------------------------------------------------------------------

    def pause(self) -> None:
        """May give the turn to another actor."""
        if self.choices.likely(_LOSES_TURN):
            self._hub.switch()

    def until(self, ready: Callable[[], bool]) -> None:
        """Waits until `ready` returns true."""
        if not ready():
            if self._killing:
                raise GreenletExit
            actor = self.current
            actor.ready = ready
            self._hub.switch()
            actor.ready = None

    def sleep(self, seconds: float) -> None:
        late = REQUEST_LIVES * 2 if self.oversleeps and seconds >= 0.5 else 0.0
        self.current.wakes = self.now + seconds + late
        self._hub.switch()

    # -- for the schedule -------------------------------------------------------------------------

    def spawn(self, name: str, process: Owner, run: Callable[[], None]) -> Actor:
        actor = Actor(name, process, run, self._hub)
        self.actors.append(actor)
        return actor

    def run(self, actor: Actor) -> None:
        """Runs an actor until it loses its turn or ends."""
        if actor.wakes > self.now:
            self.advance(actor.wakes)
        self._turn(actor)

    def advance(self, to: float) -> None:
        """Lets time pass. Requests that are due before the new time arrive first."""
        for actor in [a for a in self.actors if a.due is not None and a.due < to]:
            self.finish(actor)
        self.now = max(self.now, to)

    def finish(self, actor: Actor) -> None:
        while not actor.greenlet.dead:
            self._turn(actor)

    def kill(self, actor: Actor) -> None:
        """Ends an actor where it is. Its `finally` blocks run without a pause."""
        self.current, self._killing = actor, True
        end, self.choices.end = self.choices.end, 0
        actor.greenlet.throw()
        self._killing, self.choices.end = False, end
        if actor in self.actors:
            self.actors.remove(actor)

    def _turn(self, actor: Actor) -> None:
        self.current = actor
        self.now += _TURN_TAKES
        actor.greenlet.switch()
        if actor.greenlet.dead:
            self.actors.remove(actor)


class Stop(Event):
    """`threading.Event` without a lock. A single thread does not need it, and its creation takes time."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True


class Answer(Future[T]):
    """A future without a lock. `result` and `exception` wait for the answer."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.value: T | None = None
        self.error: BaseException | None = None
        self.answered = False

    def done(self) -> bool:
        return self.answered

    def result(self, timeout: float | None = None) -> T:
        if error := self.exception(timeout):
            raise error
        return self.value  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._scheduler.until(self.done)
        return self.error


class SimulatedTime(SystemTime):
    """`syncer.pacing.SystemTime` for the lanes of one process."""

    def __init__(self, scheduler: Scheduler, process: Owner) -> None:
        self._scheduler, self._process = scheduler, process

    def monotonic(self) -> float:
        return self._scheduler.now

    def now_ms(self) -> int:
        return int(self._scheduler.now * 1000) + 1

    def wait(self, event: Event, seconds: float) -> bool:
        if not event.is_set():
            self._scheduler.sleep(seconds)
        return event.is_set()

    def run_in_background(self, name: str, work: Callable[[], T]) -> Future[T]:
        scheduler = self._scheduler
        answer: Answer[T] = Answer(scheduler)

        def run() -> None:
            scheduler.current.due = scheduler.now + scheduler.request_lives
            try:
                answer.value = work()
            except Exception as error:
                answer.error = error
            answer.answered = True

        scheduler.spawn(name, self._process, run).writes = True
        return answer

    def done(self, future: Future[T], seconds: float) -> bool:
        if not future.done() and self._scheduler.choices.likely(4):
            self._scheduler.sleep(seconds)
            return future.done()
        self._scheduler.until(future.done)
        return True
