"""The engine's protocol: everything the flow and the edges may ask, and nothing about files.

Calls are synchronous and must be made on the run loop; the few that wait for the disk are async and say so. `now` is
milliseconds since the epoch, from the node's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs

from gateway.broker.lease import Consumer
from gateway.engine.gate import Gate
from gateway.model import Batch, Delivery, SeekTo, Settlement, Sought, SubscriptionSettings, SubscriptionView, Why
from gateway.store.timer import Readable

Send = Callable[[Delivery], None]
"""How a consumer is handed a delivery: at once, without waiting."""


@attrs.define
class DeadLetter:
    """One message to be published to a dead-letter topic; `handle` goes back to `bury` once it is stored."""

    topic: str
    body: bytes
    """The delivery JSON of the original."""
    subscription: str
    attempts: int
    cause: str
    reason: str
    handle: Any


@attrs.frozen
class EngineStatistics:
    """Counters and levels for the metrics."""

    positions_end: int
    durable_end: int
    pending_bytes: int
    commits: int
    commit_seconds: float
    records: int
    bytes: int
    checkpoints: int
    segments: int
    segments_released: int
    is_full: bool
    """There is no room for another segment, and the active one is full: messages are refused."""
    by_kernel: bool
    """Commits are written and synced by the kernel itself (io_uring)."""
    merges: int
    merged_segments: int
    merged_bytes: int
    """Bytes that were moved."""
    merge_freed_bytes: int
    merge_failures: int
    sealed_bytes: int
    """Of segments that nothing is appended to any more."""
    scrubbed_bytes: int
    scrub_damaged: int
    """Records that scrubbing found damaged."""
    damaged_parts: int
    """Parts of the segments that were found damaged at the start."""
    damaged_messages: int
    """Messages that were to be delivered and could not be read."""
    mapped_bytes: int
    """Bytes that were served as slices of mapped segments."""
    bodies_bytes: int
    bodies_hits: int
    bodies_misses: int
    dedup_ids: int
    inflight_records: dict[str, int]
    """By tier: leases, and in the tiers beyond the heap what came back or is delayed too."""
    inflight_settled: dict[str, int]
    """Messages acked, nacked or terminated, by the tier their lease was in."""


class Upstream(Protocol):
    """Where small batches wait for the next commit, so that they are appended together."""

    def __len__(self) -> int:
        """How many."""

    def bring_in(self) -> None:
        """Append all of them."""


class Commits(AbstractContextManager[None], Protocol):
    """What of commits may be done by whoever looks at descriptors anyhow, in passes in which batches come in.

    It is entered for each pass, and at the end of one that brought something a commit is begun.
    """

    @property
    def readables(self) -> Mapping[int, Readable]:
        """By descriptor, who is to look where it can be read, while somebody attends."""

    def attend(self, *, attended: bool) -> None:
        """Somebody does so from now on, or does so no longer."""


class Engine(Protocol):
    """Storage and delivery state behind the flow."""

    @property
    def epoch(self) -> str:
        """Identity of one store life; ids that the gateway gives begin with it."""

    # life
    async def open(self) -> None:
        """Lock and recover. Raises StoreLockedError or StoreError, and then holds nothing."""

    async def run(self) -> None:
        """The flusher. Ends only by cancellation, or by StoreError when the store has failed."""

    async def aclose(self) -> None:
        """Sync, checkpoint, release. After `run` has ended."""

    # publishing
    @property
    def routes_at_once(self) -> bool:
        """Whether `route` is all that there is to it: no filter may have to be waited for."""

    def route(self, batch: Batch) -> None:
        """Say who each message of the batch goes to, into `batch.routes`; asks the filters that are quick."""

    def is_routed(self, batch: Batch) -> bool:
        """Whether that is known, and still holds: filters may take long, and subscriptions come and go."""

    async def ask_filters(self, batch: Batch) -> None:
        """Route it anew, waiting for filters that take long; then see whether it `is_routed` by now."""

    def filter_errors(self) -> dict[str, int]:
        """Messages of which a filter could not say whether they match, by subscription; of those that have one."""

    def set_gate(self, name: str, gate: Gate | None) -> None:
        """Put a gate in front of the subscription of this name, also one that is made later; None takes it away."""

    def on_created(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the name of each new subscription, before it is due anything: it may set its gate."""

    def append(self, batches: Sequence[Batch], now: int) -> None:
        """Give each accepted message its place; reported by `committed`. Raises StoreError once the store failed.

        Each batch `is_routed`.
        """

    @property
    def has_room(self) -> bool:
        """Whether `wait_room` would not wait."""

    async def wait_room(self) -> None:
        """Wait while too much waits for the disk."""

    def bring_from(self, upstream: Upstream) -> None:
        """Have `upstream` bring in what waits there before each commit, and before subscriptions come or go."""

    def expect(self) -> None:
        """See to it that there is a commit, for what `upstream` brings in."""

    @property
    def commits(self) -> Commits | None:
        """What of them the edge may do in its own passes; None where that is nothing."""

    async def tell_commits(self, told: Callable[[list[Batch | Settlement]], None]) -> None:
        """Call `told` with the batches and settlements of each commit, once they are as durable as they asked.

        For one task, for ever. `told` must not wait, and is called by whoever made it true.
        """

    # subscriptions
    async def put_subscription(
        self, name: str, settings: SubscriptionSettings, now: int
    ) -> tuple[SubscriptionView, bool]:
        """Create or change a subscription; durable on return. True where it is new."""

    async def delete_subscription(self, name: str) -> None:
        """Forget it and all it was due; its consumers are told. Durable on return."""

    async def seek(self, name: str, to: SeekTo, now: int) -> Sought:
        """Have it read on from another place; durable on return. What consumers hold of it is taken back.

        It goes back as far as what was routed to it is kept: messages from before it was created never were.
        """

    async def redrive(self, name: str, now: int) -> int:
        """Make due once more, in order, what it gave up and is still kept; their number. Durable on return."""

    async def why(self, name: str, position: int, now: int) -> Why:
        """Why the message at `position` is not being delivered to it. `not_found` where nothing is stored there."""

    def subscription(self, name: str, now: int) -> SubscriptionView:
        """Raises GatewayError `subscription_not_found`."""

    def subscription_exists(self, name: str) -> None:
        """Raises GatewayError `subscription_not_found` where there is none of this name."""

    def subscription_count(self) -> int: ...

    def subscriptions(self, now: int) -> Iterator[SubscriptionView]:
        """All of them by name, each made when it is asked for, so that a long list can be made in turns."""

    # consumers
    def attach(
        self,
        name: str,
        *,
        window: int | None,
        send: Send,
        label: str,
        once: bool = False,
        size_max: int | None = None,
        on_deleted: Callable[[], None],
        waits: bool = True,
    ) -> Consumer:
        """A new consumer of `name`, at most `window` messages in flight, `size_max` bytes a delivery.

        `once`: it takes one delivery only. `on_deleted` is called when the subscription is deleted. Where it does not
        `wait`, `take_for` is to be called behind it, and makes it wait if it must.
        """

    def detach(self, consumer: Consumer, now: int) -> None:
        """It left: what it holds goes back at once. Does nothing the second time."""

    def unblock(self, consumer: Consumer) -> None:
        """Its socket takes more again."""

    def resize(self, consumer: Consumer, window: int, window_bytes: int) -> None:
        """So many messages and bytes in flight from now on; a window of 0 pauses it."""

    def recall(self, consumer: Consumer, now: int) -> None:
        """What its socket has not taken goes to others."""

    # the push side
    async def wait_ready(self) -> None:
        """Wait until `take` may have something."""

    def take(self, now: int) -> tuple[Consumer, Delivery] | None:
        """The next delivery that is due, and who gets it. `delivery.bodies` may still have to be read: see `load`.

        None: nothing for now. There may be more to look at all the same; `wait_ready` returns at once then.
        """

    def take_for(self, consumer: Consumer, now: int) -> Delivery | None:
        """What is there for a consumer that has just been attached; as `take`, but no turn is waited for.

        None: nothing, or others come before it; from now on it waits as all do.
        """

    def is_loaded(self, delivery: Delivery) -> bool: ...

    async def load(self, delivery: Delivery) -> None:
        """Read the bodies from the disk, off the run loop."""

    def send(self, consumer: Consumer, delivery: Delivery, now: int) -> None:
        """Hand a loaded delivery to its consumer; gives it back where the consumer has left meanwhile."""

    def handed(self, delivery: Delivery, now: int) -> None:
        """The frame has been handed to the socket: the leases begin."""

    def settle(self, settlement: Settlement, now: int) -> bool:
        """Carry out; where `settlement.done` is set it is reported by `committed`.

        False: it is about so many leases that `tick` goes on with it, and what its consumer says next comes behind it.
        `settlement.carried_out` is called at the end.
        """

    def ack(self, consumer: Consumer, low: int, high: int, now: int) -> int:
        """The short way of an ack that nobody waits for and that is about all messages of one lease: how many.

        0, and nothing done, where it is not that, or has to come behind something else: `settle` takes it.
        """

    def tick(self, now: int) -> bool:
        """One step of what is due: leases, delays. True: there is more, and others may run before the next step."""

    async def sweep(self, now: int) -> None:
        """Settle as expired what nobody has taken in its time; in steps, so that others run between."""

    async def merge(self, now: int) -> bool:
        """Look once for segments of which little is due, and move what is; whether there was a merge. In steps."""

    async def scrub(self, size: int) -> int:
        """Read and check about so many bytes of what was stored long ago; how many it were."""

    async def dead_letters(self) -> list[DeadLetter]:
        """Take some of what must be published to dead-letter topics; none: there are none, or too many under way."""

    def bury(self, dead: DeadLetter, now: int) -> None:
        """Its dead letter is stored."""

    # asking
    @property
    def kept(self) -> tuple[int, int]:
        """[first, end) of the positions that are in the store and durable."""

    async def read(self, position: int) -> bytes | None:
        """The delivery JSON of the message at `position`; None where it is not, or no more, in the store."""

    async def lookup(self, message_id: str) -> list[int]:
        """Positions of stored messages with this id, whoever gave it, ascending; the last hundred of them."""

    def standing(self, position: int) -> dict[str, bool] | None:
        """Whether the message is settled, by the subscriptions it is routed to; None where it is not in the store."""

    def statistics(self) -> EngineStatistics: ...
