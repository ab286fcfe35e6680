"""What one of several supervisors does at a time, since all would do the same: what is missed, what is held, what has failed is read again."""

from functools import partial

from bus.steps.held import Notes
from bus.steps.letters import Quarantine
from bus.steps.store import Store
from bus.steps.work_lease import WorkLease
from bus.transport.client import RedisClient
from host.instance import Instance
from supervisor.inbound.catchup import Catchup
from supervisor.inbound.held import HeldFetcher
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.quarantine_retrier import QuarantineRetrier
from supervisor.observe.metrics import Metrics
from supervisor.peers.owners import Owners
from supervisor.relay.rest import Rest


def shared_work(
    client: RedisClient,
    instance: Instance,
    store: Store,
    inbound: Inbound,
    owners: Owners,
    *,
    rest: Rest,
    metrics: Metrics,
    sync_seconds: int,
) -> tuple[QuarantineRetrier, HeldFetcher, Catchup]:
    """The three that read again, each with an office of its own. `sync_seconds`: how far back the first sync goes."""
    names = store.keys
    lease = partial(WorkLease, client, holder=instance.name, knows_dead=instance.knows_dead)
    return (
        QuarantineRetrier(
            Quarantine(client, names),
            lease(names.work_lease("retry")),
            inbound=inbound,
            owners=owners,
            rest=rest,
            metrics=metrics,
        ),
        HeldFetcher(
            store,
            lease(names.work_lease("fetch")),
            notes=Notes(client, names),
            inbound=inbound,
            rest=rest,
            metrics=metrics,
        ),
        Catchup(
            store,
            lease(names.work_lease("poll")),
            rest=rest,
            inbound=inbound,
            metrics=metrics,
            first_sync_seconds=sync_seconds,
        ),
    )
