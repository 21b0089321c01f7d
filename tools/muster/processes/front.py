"""``python -m tools.muster.processes.front``: one front, with settings of
``tools.muster.machine.process.handed``."""

from __future__ import annotations

import asyncio
import signal

import structlog
import uvloop

from cluster.settings import FrontSettings, loads
from proxy.main import Front
from tools.muster.machine import logs
from tools.muster.machine.process.crash import crash_handler
from tools.muster.machine.process.handed import take
from tools.muster.machine.process.place import Place
from tools.muster.machine.process.scheduling import short_slices
from tools.muster.machine.process.setup import hold_memory, settle_memory
from tools.muster.machine.process.trimming import give_back_freed
from tools.muster.machine.process.turns import turns
from tools.muster.machine.real import RealMachine

log = structlog.get_logger("front")


async def serve(settings: FrontSettings, place: Place) -> None:
    """Run a front until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(crash_handler(log, clients=True, disks=False))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    machine = RealMachine(loop, settings.common)
    front = Front(settings, machine)
    await front.start()
    settle_memory()
    give_back_freed(loop, locked=settings.common.memory_mlock)
    turns.watch(loop)
    place.keep(loop)
    await stopping.wait()
    await front.stop()


def main() -> None:
    settings = loads(FrontSettings, *take(1))
    common = settings.common
    logs.configure("muster/front", common.log_level, common.log_format, common.log_outputs, host=common.name,
                   front=settings.index)
    place = Place(common.cpu, lets_go=common.cpu_lets_go)
    short_slices()
    hold_memory(common, log)
    uvloop.run(serve(settings, place))


if __name__ == "__main__":
    main()
