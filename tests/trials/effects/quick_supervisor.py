"""A supervisor that starts its workers again at once, however many have died."""

from functools import partial

from supervisor.cli import main
from supervisor.pool import workforce
from supervisor.pool.crash_loop import CrashLoopLimits
from supervisor.pool.pool_settings import PoolSettings

NEVER = CrashLoopLimits(deaths=0)

if __name__ == "__main__":
    quick = partial(PoolSettings, backoff_first_seconds=0.01, backoff_last_seconds=0.01, crash_loop=NEVER)
    vars(workforce)[PoolSettings.__name__] = quick
    main()
