"""Where scenarios are measured: each on gateways of its own, or all on the one that was given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs

from gateway.bench.cases import case_of
from gateway.bench.own import OwnGateway, Setup, own_gateway, raise_descriptor_limit
from gateway.bench.plan import Plan, Target
from gateway.bench.profile import Profile
from gateway.bench.record import Case
from gateway.bench.run import Run
from gateway.bench.tally import Tally


@attrs.define
class Going:
    """What is going on, for the progress bar."""

    what: str = "starting"
    look: Callable[[], tuple[str, int, int]] = lambda: ("", 0, 1)
    """Its stage, how much is done, and how much there is."""

    def __str__(self) -> str:
        stage, done, total = self.look()
        return f"{self.what}, {stage}, {done:,} of {total:,}"


@attrs.frozen(kw_only=True)
class Ground:
    """What the command was told of all scenarios."""

    given: Target | None = None
    directory: str | None = None
    """Where the stores of gateways of our own are made."""
    scale: float = 1.0
    profile: Profile | None = None
    going: Going = attrs.field(factory=Going)

    def sized(self, full: int, least: int = 1) -> int:
        """A number of messages or connections at this scale."""
        return max(least, round(full * self.scale))

    @asynccontextmanager
    async def gateway(self, connections: int = 0, setup: Setup | None = None) -> AsyncIterator[Target]:
        """A gateway to measure. Raises LinkLostError where it does not start."""
        if self.given is not None:
            raise_descriptor_limit()
            yield self.given
            return
        async with self.own(connections, setup) as (_, target):
            yield target

    def own(
        self, connections: int = 0, setup: Setup | None = None
    ) -> AbstractAsyncContextManager[tuple[OwnGateway, Target]]:
        """A gateway of our own whatever was given: for scenarios that kill it, or need a configuration."""
        setup = setup or Setup()
        if self.profile is not None:
            setup = attrs.evolve(setup, command=self.profile.command)
        return own_gateway(self.directory, connections, setup)

    @asynccontextmanager
    async def watched(self, target: Target, case: str) -> AsyncIterator[None]:
        """Over the measured part of a case: its profile is taken, where one was asked for."""
        if self.profile is None:
            yield
            return
        async with self.profile.taken(target.pid, case):
            yield

    async def carry_out(self, plan: Plan, name: str, target: Target, scenario: str) -> Case:
        """One plan on one gateway."""
        tally = Tally(plan)
        self.going.what = f"{scenario} {name}"
        self.going.look = tally.progress
        watched = partial(self.watched, target, f"{scenario}-{name}")
        return case_of(await Run(plan, target, tally, watched).measure(), name)

    async def plan(self, plan: Plan, name: str, scenario: str, setup: Setup | None = None) -> Case:
        """One plan on a gateway with an empty store, or the one that was given."""
        async with self.gateway(plan.idle + plan.publishers + plan.subscribers, setup) as target:
            return await self.carry_out(plan, name, target, scenario)
